"""Networks as users write them, after public bug reports, that are to be executed rightly."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class InplaceMod(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(c, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Linear(128, n),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


class InplaceFn(nn.Module):  # functional in-place relu, += residual
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(c, 8, 3, padding=1)
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 16, n)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.c1(x))
        y = self.bn(self.c2(x))
        y += x
        y = F.relu(y, inplace=True)
        return self.fc(F.max_pool2d(y, 4).flatten(1))


class Shared(nn.Module):  # module used several times
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(c, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 8, 3, padding=1)
        self.r = nn.ReLU()
        self.p = nn.MaxPool2d(4)
        self.fl = nn.Flatten()
        self.fc = nn.Linear(128, n)

    def forward(self, x: Tensor) -> Tensor:
        x = self.r(self.c1(x))
        for _ in range(3):
            x = self.r(self.c(x))
        return self.fc(self.fl(self.p(x)))


class SeqSub(nn.Sequential):
    def __init__(self, c: int, n: int) -> None:
        super().__init__(
            nn.Conv2d(c, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(128, n),
        )


class Tied(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 16, 4, 4)
        self.r = nn.ReLU()
        self.fl = nn.Flatten()
        self.a = nn.Linear(256, 256)
        self.b = nn.Linear(256, 256)
        self.b.weight = self.a.weight
        self.r2 = nn.ReLU()
        self.r3 = nn.ReLU()
        self.fc = nn.Linear(256, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.r3(self.b(self.r2(self.a(self.fl(self.r(self.c(x))))))))


class Lstm(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.l = nn.LSTM(16, 32, batch_first=True)
        self.fc = nn.Linear(32, n)

    def forward(self, x: Tensor) -> Tensor:
        o, _ = self.l(x.flatten(1, 2))
        return self.fc(o[:, -1])


class Deep(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        L = [nn.Conv2d(c, 4, 3, padding=1)]
        for _ in range(300):
            L += [nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]
        self.f = nn.Sequential(*L, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, n))

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


class Kwargs(nn.Module):  # submodule called with keyword arguments
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 8, 4, 4)
        self.r = nn.ReLU()
        self.fl = nn.Flatten()
        self.fc = nn.Linear(128, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(input=self.fl(input=self.r(input=self.c(input=x))))


class CLast(nn.Module):  # permute, LayerNorm in channels-last as ConvNeXt/timm
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 8, 4, 4)
        self.ln = nn.LayerNorm(8)
        self.l = nn.Linear(8, 16)
        self.g = nn.GELU()
        self.fc = nn.Linear(16, n)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x).permute(0, 2, 3, 1)
        return self.fc(self.g(self.l(self.ln(x))).mean((1, 2)))


class Conv1(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv1d(16, 16, 3, padding=1)
        self.r = nn.ReLU()
        self.fl = nn.Flatten()
        self.fc = nn.Linear(256, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fl(self.r(self.c(x.squeeze(1)))))


class CheckPt(InplaceMod):
    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)


class OneHead(InplaceMod):  # extra scalar module (B,)
    def __init__(self, c: int, n: int) -> None:
        super().__init__(c, n)
        self.sc = nn.Linear(n, 1)
        self.sq = nn.Flatten(0)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + self.sq(self.sc(logits))[:, None]


class WNorm(InplaceMod):
    def __init__(self, c: int, n: int) -> None:
        super().__init__(c, n)
        self.f[0] = nn.utils.parametrizations.weight_norm(self.f[0])
        self.f[-1] = nn.utils.parametrizations.spectral_norm(self.f[-1])


class OldWNorm(InplaceMod):
    def __init__(self, c: int, n: int) -> None:
        super().__init__(c, n)
        self.f[0] = nn.utils.weight_norm(self.f[0])


class ImgMut(InplaceMod):  # normalises its input in place
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone() if x.requires_grad else x
        x.sub_(0.1).div_(0.9)
        return super().forward(x)


class PixelShuf(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 8, 4, 4)
        self.ps = nn.PixelShuffle(2)
        self.r = nn.SiLU(inplace=True)
        self.fc = nn.Linear(128, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.r(self.ps(self.c(x))).flatten(1))


class OneWN(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c1 = nn.utils.parametrizations.weight_norm(nn.Conv2d(c, 8, 3, padding=1))
        self.r = nn.ReLU()
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.r2 = nn.ReLU()
        self.p = nn.MaxPool2d(4)
        self.fl = nn.Flatten()
        self.fc = nn.Linear(128, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fl(self.p(self.r2(self.c2(self.r(self.c1(x)))))))


class MyConv(nn.Conv2d):
    pass


class SubConv(nn.Module):  # subclass of Conv2d (weight standardised, timm StdConv2d)
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c1 = MyConv(c, 8, 3, padding=1)
        self.r = nn.ReLU()
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.r2 = nn.ReLU()
        self.p = nn.MaxPool2d(4)
        self.fl = nn.Flatten()
        self.fc = nn.Linear(128, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fl(self.p(self.r2(self.c2(self.r(self.c1(x)))))))


class LinDrop(nn.Module):  # LoRA-like wrapper: a Linear with a child
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.fl = nn.Flatten()
        self.a = nn.Linear(256, 64)
        self.a.extra = nn.Identity()
        self.r = nn.ReLU()
        self.fc = nn.Linear(64, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.r(self.a(self.fl(x))))
