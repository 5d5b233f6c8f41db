"""Tests on a cluster run only where they are asked for by path, as `make test-cluster` does."""

import os
from pathlib import Path

import pytest
from cluster.slurm import Cluster, missing

HERE = Path(__file__).parent


def is_asked_for(config: pytest.Config) -> bool:
    words = [Path(str(word).partition("::")[0]) for word in config.invocation_params.args]
    return any((config.invocation_params.dir / word).resolve().is_relative_to(HERE) for word in words)


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if is_asked_for(config) else True


def pytest_sessionstart(session: pytest.Session) -> None:
    if is_asked_for(session.config) and (packages := missing()):
        pytest.exit(
            f"{' and '.join(packages)} not installed: expected the programs of Slurm and munge; install the packages, "
            f"as by `apt-get install {' '.join(packages)}`",
            returncode=1,
        )


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Two nodes, which run Python as the tests do."""
    root = HERE.parents[1]
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.env["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        yield running
