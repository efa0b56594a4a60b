"""Networks as users write them, after public bug reports, that are to be refused in one line."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from users_networks import InplaceMod, SeqSub


class MCDropout(InplaceMod):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, training=True)


class StuckTrain(InplaceMod):  # train() overridden: BN frozen in training mode
    def __init__(self, c: int, n: int) -> None:
        super().__init__(c, n)
        self.f.insert(3, nn.Dropout(0.3))

    def train(self, mode: bool = True) -> "StuckTrain":
        return super().train(True)


class Half(InplaceMod):
    def __init__(self, c: int, n: int) -> None:
        super().__init__(c, n)
        self.half()


class HalfBody(InplaceMod):  # casts in and out
    def __init__(self, c: int, n: int) -> None:
        super().__init__(c, n)
        self.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.bfloat16()).float()


class Double(InplaceMod):
    def __init__(self, c: int, n: int) -> None:
        super().__init__(c, n)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double()).float()


class Lazy(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.f = nn.Sequential(
            nn.LazyConv2d(8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LazyLinear(n)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


class EmbedNet(nn.Module):  # non-float inside: pixels -> indices
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.e = nn.Embedding(256, 4)
        self.fc = nn.Linear(4 * 256, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.e(((x + 1) * 127).long().clamp(0, 255)).flatten(1))


class BatchNormTrain(nn.Module):  # F.batch_norm(training=True): mixes the batch
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 8, 4, 4)
        self.r = nn.ReLU()
        self.fl = nn.Flatten()
        self.fc = nn.Linear(128, n)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x)
        x = F.batch_norm(x, None, None, training=True)
        return self.fc(self.fl(self.r(x)))


class ViewErr(nn.Module):  # x.view on conv output: breaks under channels_last
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 8, 4, 4)
        self.r = nn.ReLU()
        self.fc = nn.Linear(128, n)

    def forward(self, x: Tensor) -> Tensor:
        x = self.r(self.c(x))
        return self.fc(x.view(x.size(0), -1))


class NoGradNet(InplaceMod):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Scripted(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.m = torch.jit.script(SeqSub(c, n))

    def forward(self, x: Tensor) -> Tensor:
        return self.m(x)
