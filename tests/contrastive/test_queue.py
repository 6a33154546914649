import torch

from densebnn.contrastive import EmbeddingQueue


def rows(*values):
    return torch.tensor(values, dtype=torch.float32).unsqueeze(1)


def test_first_in_first_out():
    queue = EmbeddingQueue(4, 1)
    assert len(queue.stored().latent) == 0
    queue.push(rows(1, 2, 3), -rows(1, 2, 3))
    assert queue.stored().latent.flatten().tolist() == [1, 2, 3]
    queue.push(rows(4, 5), -rows(4, 5))
    assert sorted(queue.stored().latent.flatten().tolist()) == [2, 3, 4, 5]
    assert torch.equal(queue.stored().binary, -queue.stored().latent)


def test_a_batch_larger_than_the_queue_leaves_its_last_rows():
    queue = EmbeddingQueue(2, 1)
    queue.push(rows(1, 2, 3, 4, 5), rows(1, 2, 3, 4, 5))
    assert sorted(queue.stored().latent.flatten().tolist()) == [4, 5]


def test_what_was_taken_out_is_not_changed_by_a_push():
    queue = EmbeddingQueue(2, 1)
    queue.push(rows(1, 2), rows(1, 2))
    taken = queue.stored()
    queue.push(rows(8, 9), rows(8, 9))
    assert taken.latent.flatten().tolist() == [1, 2]
