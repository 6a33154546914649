from torch import nn

from densebnn.binary import broadcast


class Listener(nn.Module):
    def __init__(self):
        super().__init__()
        self.heard = []

    def on_progress(self, progress):
        self.heard.append(progress)


def test_every_module_that_listens_hears_it_once_and_others_are_passed_over():
    listeners = [Listener(), Listener()]
    model = nn.Sequential(listeners[0], nn.Conv2d(1, 1, 1), nn.Sequential(listeners[1]))
    broadcast(model, "on_progress", 0.25)
    broadcast(model, "on_stepped")
    assert [listener.heard for listener in listeners] == [[0.25], [0.25]]
