import pytest
import torch
import torch.nn.functional as F

from densebnn.contrastive import MemoryBank
from densebnn.registry import UserError


@pytest.fixture
def bank():
    torch.manual_seed(0)
    return MemoryBank(8, 4, negatives=5, momentum=0.25)


def test_rows_move_towards_their_samples_and_of_a_sample_twice_in_a_batch_the_first_counts(bank):
    before = bank.latent.clone()
    fresh = F.normalize(torch.randn(3, 4), dim=1)
    bank.push(fresh, -fresh, torch.tensor([6, 2, 6]), torch.tensor([1, 0, 1]))
    for row, sample in ((0, 6), (1, 2)):
        expected = F.normalize(0.25 * before[sample] + 0.75 * fresh[row], dim=0)
        torch.testing.assert_close(bank.latent[sample], expected)
    assert torch.equal(bank.latent[[0, 1, 3, 4, 5, 7]], before[[0, 1, 3, 4, 5, 7]])
    assert bank.label.tolist() == [-1, -1, 0, -1, -1, -1, 1, -1]


def test_negatives_change_with_every_step_and_go_on_where_a_saved_bank_was(bank):
    rows, index, label = torch.zeros(1, 4), torch.tensor([0]), torch.tensor([3])
    drawn = []
    for _ in range(3):
        drawn.append(bank.draw().ids)
        assert torch.equal(bank.draw().ids, drawn[-1])
        bank.push(rows, rows, index, label)
    assert not torch.equal(drawn[0], drawn[1])
    torch.manual_seed(5)
    other = MemoryBank(8, 4, negatives=5, momentum=0.25)
    assert not torch.equal(other.draw().latent, bank.draw().latent)
    other.load_state_dict(bank.state_dict())
    for mine, others in zip(bank.draw(), other.draw(), strict=True):
        assert torch.equal(mine, others)


@pytest.mark.parametrize(("index", "message"), [(-3, "needs the indices"), (8, "made for 8 samples")])
def test_samples_that_it_does_not_know(bank, index, message):
    with pytest.raises(UserError, match=message):
        bank.rows(torch.tensor([index]))


@pytest.mark.parametrize("arguments", [(0, 4), (8, 4, 0), (8, 4, 5, 1.0)])
def test_wrong_arguments(arguments):
    with pytest.raises(UserError, match="memory bank"):
        MemoryBank(*arguments)
