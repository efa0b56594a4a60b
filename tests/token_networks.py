"""Networks as users write them whose tensors do not all hold one image after the other."""

import torch
from torch import Tensor, nn


class SeqFirst(nn.Module):  # tokens first: (T, B, D), nn.Linear on it
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 8, 4, 4)
        self.l1 = nn.Linear(8, 16)
        self.act = nn.GELU()
        self.l2 = nn.Linear(16, 8)
        self.fc = nn.Linear(8, n)

    def forward(self, x: Tensor) -> Tensor:
        t = self.c(x).flatten(2).permute(2, 0, 1)  # (16, B, 8)
        t = self.l2(self.act(self.l1(t)))
        return self.fc(t.mean(0))


class SeqFirst64(SeqFirst):
    def __init__(self, c: int, n: int) -> None:
        super().__init__(c, n)
        self.c = nn.Conv2d(c, 8, 2, 2)  # 64 tokens


class TransEnc(nn.Module):  # nn.TransformerEncoder default batch_first=False
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 16, 2, 2)
        self.e = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1), 2)
        self.fc = nn.Linear(16, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.e(self.c(x).flatten(2).permute(2, 0, 1)).mean(0))


class SelfAttn(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 16, 4, 4)
        self.mha = nn.MultiheadAttention(16, 2, batch_first=True)
        self.ln = nn.LayerNorm(16)
        self.fc = nn.Linear(16, n)

    def forward(self, x: Tensor) -> Tensor:
        t = self.c(x).flatten(2).transpose(1, 2)
        t = self.ln(t + self.mha(t, t, t)[0])
        return self.fc(t[:, 0])


class Crops(nn.Module):  # two crops stacked in the batch: repeat (B*2)
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 8, 4, 4)
        self.r = nn.ReLU()
        self.fc = nn.Linear(128, n)

    def forward(self, x: Tensor) -> Tensor:
        B = len(x)
        y = torch.cat([x, x.flip(3)])
        y = self.fc(self.r(self.c(y)).flatten(1))
        return (y[:B] + y[B:]) / 2


class ClsTok(nn.Module):  # 1+16 tokens, tokens first
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(c, 8, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.l1 = nn.Linear(8, 16)
        self.act = nn.GELU()
        self.l2 = nn.Linear(16, 8)
        self.fc = nn.Linear(8, n)

    def forward(self, x: Tensor) -> Tensor:
        t = self.c(x).flatten(2).permute(2, 0, 1)
        t = torch.cat([self.cls.expand(1, t.shape[1], 8), t])
        return self.fc(self.l2(self.act(self.l1(t)))[0])
