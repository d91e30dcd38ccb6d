# SPDX-License-Identifier: Apache-2.0
"""Trajectories of MLX's optimisers (and of PyTorch's where it has the same one) on random gradients, for tests/test_optimizer.c.

tests/golden/optimizers.safetensors: per case <case>.<shape>.p0, .g [steps, …] and .p [steps, …], the parameter after each step.
"""
import mlx.core as mx
import mlx.optimizers as optim
from common import *

STEPS = 6
SHAPES = {"matrix": (5, 7), "tall": (9, 4), "vector": (6,)}


def cases():
    """Each a function: an optimiser keeps its state."""
    yield "adamw", lambda: optim.AdamW(1e-2, weight_decay=0.1, bias_correction=True)
    yield "adamw_uncorrected", lambda: optim.AdamW(1e-2)
    yield "adam", lambda: optim.Adam(1e-2, bias_correction=True)
    yield "sgd", lambda: optim.SGD(1e-2)
    yield "sgd_nesterov", lambda: optim.SGD(1e-2, momentum=0.9, weight_decay=0.05, nesterov=True)
    yield "sgd_dampened", lambda: optim.SGD(1e-2, momentum=0.9, dampening=0.3)
    yield "adafactor", lambda: optim.Adafactor(1e-2, relative_step=False)
    yield "adafactor_moment", lambda: optim.Adafactor(1e-2, relative_step=False, beta_1=0.9, weight_decay=0.1)
    yield "muon", lambda: optim.Muon(1e-2)


def check_torch(name, p, g, want):
    options = {"adamw": (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1}), "adam": (torch.optim.Adam, {"lr": 1e-2})}
    if name not in options:
        return
    kind, o = options[name]
    with torch.enable_grad():
        q = torch.nn.Parameter(torch.from_numpy(p.copy()))
        opt = kind([q], **o)
        for i in range(STEPS):
            q.grad = torch.from_numpy(g[i].copy())
            opt.step()
    assert np.abs(q.detach().numpy() - want[-1]).max() < 1e-6, name


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    rng = np.random.default_rng(3)
    out = {}
    for name, make in cases():
        for kind, shape in SHAPES.items():
            p0 = rng.standard_normal(shape, dtype=np.float32)
            g = rng.standard_normal((STEPS, *shape), dtype=np.float32)
            params, path = {"p": mx.array(p0)}, []
            opt = make()
            for i in range(STEPS):
                params = opt.apply_gradients({"p": mx.array(g[i])}, params)
                mx.eval(params)
                path.append(np.array(params["p"]))
            check_torch(name, p0, g, path)
            out[f"{name}.{kind}.p0"], out[f"{name}.{kind}.g"], out[f"{name}.{kind}.p"] = p0, g, np.stack(path)
    schedules = {
        "cosine": optim.cosine_decay(1e-2, 8, 1e-3), "linear": optim.linear_schedule(1e-2, 1e-3, 8),
        "exponential": optim.exponential_decay(1e-2, 0.9), "step": optim.step_decay(1e-2, 0.5, 3),
    }
    warm = optim.join_schedules([optim.linear_schedule(1e-4, 1e-2, 4), schedules["cosine"]], [4])
    for name, f in {**schedules, "warmup": warm}.items():
        out[f"schedule.{name}"] = np.array([float(f(mx.array(i))) for i in range(14)], dtype=np.float32)
    save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in out.items()}, os.path.join(GOLDEN, "optimizers.safetensors"))
    print(len(out), "tensors")
