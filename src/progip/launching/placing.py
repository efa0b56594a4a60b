"""Where one job of a sweep runs: its threads and its GPU, from the launcher that started it.

Spreading the jobs is the launcher's work; here each job only learns its fair share of a machine.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def placed(cfg: DictConfig) -> DictConfig:
    """A job's configuration with ``threads`` and ``device`` made its own.

    ``threads: 0`` becomes the job's share of the cores where a launcher runs several jobs at once
    (unless OMP_NUM_THREADS decides), and ``device: auto`` one of several GPUs, by job number.
    Workers of such launchers also show no progress bars, which would overwrite each other.
    """
    job = HydraConfig.get()
    launcher = job.launcher
    if launcher._target_.endswith("BasicLauncher"):  # one job at a time
        return cfg
    os.environ.setdefault("TQDM_DISABLE", "1")
    own = cfg.copy()
    if not own.threads and "OMP_NUM_THREADS" not in os.environ:
        options = OmegaConf.to_container(launcher, resolve=True)
        own.threads = threads_of(options, cores())  # type: ignore[arg-type]
    if own.device == "auto" and not OmegaConf.is_missing(job.job, "num"):
        own.device = device_of(job.job.num, torch.cuda.device_count())
    return own


def threads_of(launcher: Mapping[str, Any], available: int) -> int:
    """Threads of each job, at least 1.

    Args:
        launcher: the resolved node ``hydra.launcher``. joblib shares the cores among its
            ``n_jobs``; submitit gives ``cpus_per_task``, Ray ``ray.remote.num_cpus``, both 1 by
            default.
        available: cores that this process may use.
    """
    if "n_jobs" in launcher:
        jobs = int(launcher["n_jobs"])
        workers = jobs if jobs > 0 else max(available + 1 + jobs, 1)
        return max(available // workers, 1)
    ray = (launcher.get("ray") or {}).get("remote") or {}
    return max(int(launcher.get("cpus_per_task") or ray.get("num_cpus") or 1), 1)


def device_of(job: int, gpus: int) -> str:
    """The GPU of a job where the launcher shows it several, else ``auto``."""
    return f"cuda:{job % gpus}" if gpus > 1 else "auto"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
