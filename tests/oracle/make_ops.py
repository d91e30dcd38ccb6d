# SPDX-License-Identifier: Apache-2.0
"""Vectors for ops that are easy to get subtly wrong, from PyTorch in f64 and from MLX in f32.

One file per op in tests/golden/ops. Naming inside: inputs by their letter, the result "y", the cotangent "dy" (what
the gradients contract with), gradients "dX" of input X. Reals computed in f64 are stored in f64; *_f32 are what MLX
gives in f32. Integers are i32. Parameters are one-element tensors.
"""
import math
import os

import mlx.core as mx
from common import *
from torch.nn import functional as F

mx.set_default_device(mx.cpu)
OUT = os.path.join(GOLDEN, "ops")
GEN = torch.Generator().manual_seed(1234)


def normal(*shape, std=1.0):
    return torch.randn(shape, generator=GEN, dtype=torch.float64) * std


def scalar(x):
    return torch.tensor([x], dtype=torch.float64)


def from_mlx(a):
    return torch.from_numpy(np.array(a.astype(mx.float32)).copy())


def to_mlx(t):
    return mx.array(t.float().numpy() if t.is_floating_point() else t.numpy())


def save(name, **tensors):
    os.makedirs(OUT, exist_ok=True)
    tensors = {k: v.detach().contiguous() for k, v in tensors.items()}
    save_file(tensors, os.path.join(OUT, name + ".safetensors"))
    print(f"{name:24} {', '.join(f'{k}{list(v.shape)}' for k, v in tensors.items())}")


def with_gradients(fn, wrt, **inputs):
    """Inputs, y, a random dy, and the gradient of sum(y * dy) for each name in wrt."""
    with torch.enable_grad():
        live = {k: v.clone().requires_grad_(k in wrt) for k, v in inputs.items()}
        y = fn(**live)
        dy = normal(*y.shape) if y.ndim else scalar(1.0)[0]
        grads = torch.autograd.grad(y, [live[k] for k in wrt], dy)
    out = dict(inputs, y=y, dy=dy)
    out.update({"d" + k: g for k, g in zip(wrt, grads)})
    return out


EDGE = torch.tensor(
    [0.0, -0.0, 1e-30, -1e-30, 1e-8, -1e-8, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 6.0, -6.0, 12.0, -12.0, 30.0, -30.0, 90.0,
     -90.0, 1000.0, -1000.0], dtype=torch.float64)


def activations():
    x = torch.cat([EDGE, torch.linspace(-8, 8, 201, dtype=torch.float64)])
    out = {"x": x, "dy": normal(len(x))}
    table = {
        "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"), "gelu_erf": F.gelu, "silu": F.silu,
        "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": F.relu,
    }
    for name, fn in table.items():
        with torch.enable_grad():
            t = x.clone().requires_grad_()
            y = fn(t)
            (g,) = torch.autograd.grad(y, t, out["dy"])
        out[name], out["d_" + name] = y, g
    save("activations", **out)


def rotate(x, cos, sin, traditional):
    """x [..., T, D] with angles [T, D/2]: pairs (2i, 2i+1) if traditional, else (i, i + D/2)."""
    if traditional:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def rope():
    x = normal(2, 3, 5, 12)  # [B, H, T, Dh]
    for traditional in (False, True):
        kind = "traditional" if traditional else "half"
        for label, dims, base, scale, offset in (
            ("plain", 12, 10000.0, 1.0, 0), ("offset", 12, 1e6, 0.125, 4099), ("partial", 8, 500.0, 2.0, 7),
        ):
            inv = base ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
            angle = (torch.arange(5, dtype=torch.float64)[:, None] + offset) * scale * inv
            fn = lambda x: torch.cat([rotate(x[..., :dims], angle.cos(), angle.sin(), traditional), x[..., dims:]], -1)
            out = with_gradients(fn, ["x"], x=x)
            out["y_f32"] = from_mlx(
                mx.fast.rope(to_mlx(x), dims, traditional=traditional, base=base, scale=scale, offset=offset)
            )
            assert (out["y_f32"] - out["y"]).abs().max() < 2e-3, (label, (out["y_f32"] - out["y"]).abs().max())
            save(f"rope_{kind}_{label}", dims=scalar(dims), base=scalar(base), scale=scalar(scale),
                 offset=scalar(offset), **out)
    # Given frequencies: MLX's freqs are wavelengths/2pi, the angle is position * scale / freqs. One offset a row.
    freqs = 100.0 ** (torch.arange(6, dtype=torch.float64) / 6) * torch.tensor([1, 1, 2, 4, 8, 8], dtype=torch.float64)
    offsets = torch.tensor([3, 1700], dtype=torch.int32)
    angle = (torch.arange(5)[None, :, None] + offsets[:, None, None]).double() / freqs
    angle = angle[:, None]
    out = with_gradients(lambda x: rotate(x, angle.cos(), angle.sin(), False), ["x"], x=x)
    out["y_f32"] = from_mlx(
        mx.fast.rope(to_mlx(x), 12, traditional=False, base=None, scale=1.0, offset=to_mlx(offsets), freqs=to_mlx(freqs))
    )
    assert (out["y_f32"] - out["y"]).abs().max() < 2e-3
    save("rope_freqs_offsets", freqs=freqs, offsets=offsets, **out)


def attention(q, k, v, scale, bias):
    """q [B,H,T,Dh]; k, v [B,Hkv,S,Dh] (grouped); bias broadcasts to [B,H,T,S], -inf forbids."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return torch.softmax(q @ k.transpose(-1, -2) * scale + bias, -1) @ v


def sdpa():
    B, H, Hkv, T, S, Dh = 2, 6, 2, 5, 9, 10
    q, k, v = normal(B, H, T, Dh, std=1.5), normal(B, Hkv, S, Dh, std=1.5), normal(B, Hkv, S, Dh)
    scale = 0.37
    i, j = torch.arange(T)[:, None] + S - T, torch.arange(S)[None]  # the queries are the last T positions
    inf = torch.tensor(-math.inf, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    ragged = torch.tensor([9, 6])[:, None, None, None] > j  # row 1 may see 6 keys only
    additive = normal(H, T, S, std=2.0)
    cases = {
        "none": zero.expand(T, S), "causal": torch.where(j <= i, zero, inf),
        "window": torch.where((j <= i) & (j > i - 3), zero, inf),  # itself and the two before
        "bool": torch.where(ragged, zero, inf).expand(B, 1, T, S), "additive": additive,
    }
    for name, bias in cases.items():
        out = with_gradients(lambda q, k, v: attention(q, k, v, scale, bias), ["q", "k", "v"], q=q, k=k, v=v)
        mask = {"none": None, "causal": "causal", "bool": to_mlx(ragged.expand(B, 1, T, S))}.get(name, to_mlx(bias))
        out["y_f32"] = from_mlx(mx.fast.scaled_dot_product_attention(to_mlx(q), to_mlx(k), to_mlx(v), scale=scale, mask=mask))
        assert (out["y_f32"] - out["y"]).abs().max() < 1e-5, name
        extra = {"mask": ragged.expand(B, 1, T, S).to(torch.uint8)} if name == "bool" else {}
        extra.update({"mask": bias} if name in ("additive", "window") else {})
        save("sdpa_" + name, scale=scalar(scale), **extra, **out)
    # Large scores: without subtracting the maximum this overflows; one decode row, GQA.
    big = with_gradients(
        lambda q, k, v: attention(q, k, v, scale, zero), ["q", "k", "v"],
        q=normal(1, 4, 1, 8, std=60), k=normal(1, 1, 33, 8, std=60), v=normal(1, 1, 33, 8),
    )
    save("sdpa_large", scale=scalar(scale), **big)


def reductions():
    inf = math.inf
    rows = torch.stack([
        normal(7), normal(7) * 300, normal(7) - 1e4, torch.full((7,), 2.5, dtype=torch.float64),
        torch.tensor([1e4, 1e4, 0, 0, 0, 0, 0], dtype=torch.float64),
        torch.tensor([-inf, -inf, 0.5, -inf, 1, -inf, -inf], dtype=torch.float64),
    ])
    edge = torch.tensor([[-inf] * 7, [inf, 0, 1, 2, 3, 4, 5], [math.nan, 0, 1, 2, 3, 4, 5]], dtype=torch.float64)
    out = with_gradients(lambda x: torch.logsumexp(x, -1), ["x"], x=rows)
    save("logsumexp", edge=edge, y_edge=torch.logsumexp(edge, -1), y_edge_f32=from_mlx(mx.logsumexp(to_mlx(edge), -1)), **out)
    out = with_gradients(lambda x: torch.softmax(x, -1), ["x"], x=rows)
    save("softmax", y_axis0=torch.softmax(rows[:5], 0), **out)


def norms():
    x, w, b = normal(3, 4, 11, std=2.0), 1 + normal(11, std=0.3), normal(11)
    rms = lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w
    save("rms_norm", eps=scalar(1e-5), **with_gradients(rms, ["x", "w"], x=x, w=w))
    save("layer_norm", eps=scalar(1e-5),
         **with_gradients(lambda x, w, b: F.layer_norm(x, (11,), w, b, 1e-5), ["x", "w", "b"], x=x, w=w, b=b))
    tiny = torch.cat([torch.zeros(1, 11, dtype=torch.float64), normal(1, 11) * 1e-9, normal(1, 11) * 1e9])
    save("rms_norm_edge", eps=scalar(1e-6), x=tiny, w=w, y=tiny * torch.rsqrt(tiny.pow(2).mean(-1, keepdim=True) + 1e-6) * w)


def losses():
    logits, targets = normal(6, 13, std=3.0), torch.tensor([0, 12, 5, 5, 7, 1], dtype=torch.int32)
    mask = torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.float64)
    ce = lambda x: F.cross_entropy(x, targets.long())
    save("cross_entropy", targets=targets, **with_gradients(ce, ["x"], x=logits))

    def masked(x):
        return (F.cross_entropy(x, targets.long(), reduction="none") * mask).sum() / mask.sum()

    save("cross_entropy_masked", targets=targets, mask=mask, **with_gradients(masked, ["x"], x=logits))
    save("mse", **with_gradients(lambda x, t: F.mse_loss(x, t), ["x"], x=logits, t=normal(6, 13)))


def block():
    """A whole transformer block with its loss: gradients through everything at once.

    tokens [T] -> embedding e [V,D]; rms_norm w1; q,k,v (weights [out,in], 2 heads, 1 of keys, Dh 6); rope half split,
    base 100; causal attention, scale Dh^-1/2; wo; residual; rms_norm w2; wd(silu(wg h) * (wu h)); residual; logits by
    the tied embedding; mean cross entropy against targets.
    """
    T, D, V, H, Dh, Fw = 7, 10, 17, 2, 6, 14
    tokens = torch.randint(0, V, (T,), generator=GEN, dtype=torch.int32)
    targets = torch.randint(0, V, (T,), generator=GEN, dtype=torch.int32)
    weights = dict(
        e=normal(V, D), w1=1 + normal(D, std=0.2), wq=normal(H * Dh, D, std=0.5), wk=normal(Dh, D, std=0.5),
        wv=normal(Dh, D, std=0.4), wo=normal(D, H * Dh, std=0.4), w2=1 + normal(D, std=0.2), wg=normal(Fw, D, std=0.4),
        wu=normal(Fw, D, std=0.4), wd=normal(D, Fw, std=0.4),
    )
    angle = torch.arange(T, dtype=torch.float64)[:, None] * 100.0 ** (-torch.arange(0, Dh, 2, dtype=torch.float64) / Dh)
    bias = torch.full((T, T), -math.inf, dtype=torch.float64).triu(1)
    rms = lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w
    turn = lambda x: rotate(x, angle.cos(), angle.sin(), False)

    def loss(e, w1, wq, wk, wv, wo, w2, wg, wu, wd):
        x = e[tokens.long()]
        h = rms(x, w1)
        heads = lambda y, n: y.view(T, n, Dh).transpose(0, 1)[None]
        a = attention(turn(heads(h @ wq.T, H)), turn(heads(h @ wk.T, 1)), heads(h @ wv.T, 1), Dh**-0.5, bias)
        x = x + a[0].transpose(0, 1).reshape(T, H * Dh) @ wo.T
        h = rms(x, w2)
        x = x + (F.silu(h @ wg.T) * (h @ wu.T)) @ wd.T
        return F.cross_entropy(x @ e.T, targets.long())

    save("block", tokens=tokens, targets=targets, eps=scalar(1e-5), **with_gradients(loss, list(weights), **weights))


def indexing():
    """take with repeated indices (gradients add up), cumsum, sort, top-k values."""
    x, idx = normal(6, 5), torch.tensor([4, 0, 4, 4, 1], dtype=torch.int32)
    save("take", idx=idx, **with_gradients(lambda x: x[idx.long()], ["x"], x=x))
    save("cumsum", **with_gradients(lambda x: torch.cumsum(x, 1), ["x"], x=x))
    along = torch.stack([torch.randperm(5, generator=GEN)[:3] for _ in range(6)]).to(torch.int32)
    along[2] = 1
    save("take_along_axis", idx=along, **with_gradients(lambda x: torch.gather(x, 1, along.long()), ["x"], x=x))
    ties = torch.tensor([[3.0, 1, 3, 2, 3], [0, 0, 0, 0, 0], [-1, -2, -1, 5, 5]], dtype=torch.float64)
    save("sort", x=ties, argsort_stable=torch.argsort(ties, dim=1, stable=True).to(torch.int32), sorted=torch.sort(ties, 1)[0],
         argmax_first=torch.from_numpy(ties.numpy().argmax(1)).to(torch.int32))


def rounding():
    """f64/f32 -> f16, bf16 (nearest even, overflow, denormals, nan) and back to f32: bit patterns."""
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**32, 3000, dtype=np.uint32)
    ties = (np.arange(256, dtype=np.uint32) << 12) + np.uint32(0x3F800000)
    special = np.array([0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0x477FEFFF, 0x477FF000, 0x33000000,
                        0x33000001, 0x387FC000, 0x00800000, 1, 0x7F7F8000, 0x7F7F7FFF], dtype=np.uint32)
    x = np.concatenate([special, ties, bits]).view(np.float32)
    x = torch.from_numpy(x[~np.isnan(x) | (np.arange(len(x)) < 15)].copy())
    save("rounding", x=x, f16=x.to(torch.float16), bf16=x.to(torch.bfloat16))


if __name__ == "__main__":
    for make in (activations, rope, sdpa, reductions, norms, losses, indexing, block, rounding):
        make()
    print(f"total {folder_bytes(OUT) // 1024} KiB")
