"""A real Slurm of two nodes on this machine: one controller and two daemons that differ in name and port.

It needs the programs of the packages slurm-wlm and munge and no privileges. Everything is in one folder, and only the
processes that were started here are ended, by their numbers.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PACKAGES = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm"}
NODES = ("node1", "node2")
PATIENCE = 900  # seconds for anything to happen, on a machine that may be busy with other things
FORGETS = 75  # seconds after which Slurm has repeated to a node what it could not tell it; it tries once a minute
SBIN = ("/usr/sbin", "/sbin")  # which an ordinary user's PATH may lack


def program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SBIN]))


def missing() -> list[str]:
    """The packages whose programs are not installed."""
    return sorted({package for name, package in PACKAGES.items() if program(name) is None})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def parents() -> dict[int, int]:
    """Process -> its parent, of all processes."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found


def environment(process: int) -> dict[str, str]:
    """The environment that a process was started with; empty if it has ended or is another user's."""
    try:
        words = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def is_step_daemon(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip() == "slurmstepd"
    except OSError:
        return False


def holds_back(process: int | None, number: int) -> bool:
    """Whether a process has the system hold a signal back."""
    try:
        mask = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return False
    return mask is not None and bool(int(mask[1], 16) >> (number - 1) & 1)


class Job:
    """A job of a cluster.

    Args:
        cluster: that it runs on.
        number: as given by `sbatch`.
        output: file of its output.
    """

    def __init__(self, cluster: "Cluster", number: str, output: Path) -> None:
        self.cluster, self.number, self.output = cluster, number, output

    @property
    def facts(self) -> dict[str, str]:
        """What `scontrol show job` says; of the first job of an array it shows the others, too."""
        text = self.cluster.call("scontrol", "show", "job", self.number)
        return dict(re.findall(r"(\w+)=(\S*)", text[text.index(f"JobId={self.number} ") :].partition("\n\n")[0]))

    @property
    def text(self) -> str:
        return self.output.read_text() if self.output.is_file() else ""

    def wait_for(self, what: str, times: int = 1, seconds: float = PATIENCE) -> None:
        """Waits until a text is in the output, so many times."""
        self.cluster.wait_until(lambda: self.text.count(what) >= times, lambda: f"{what!r} in\n{self.text}", seconds)

    def wait_for_state(self, *states: str, seconds: float = PATIENCE) -> str:
        self.cluster.wait_until(
            lambda: self.facts["JobState"] in states, lambda: f"{states} of {self.facts}\n{self.text}", seconds
        )
        return self.facts["JobState"]

    def wait_for_end(self, seconds: float = PATIENCE) -> str:
        """Waits for its end and returns its state, such as COMPLETED."""
        return self.wait_for_state("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", seconds=seconds)

    def processes(self) -> dict[int, dict[str, str]]:
        """Processes of the job with their environments."""
        found = {process: environment(process) for process in parents()}
        return {process: words for process, words in found.items() if words.get("SLURM_JOB_ID") == self.number}

    def rank(self, number: int, variable: str = "SLURM_PROCID") -> int | None:
        """The process of a rank, by the variable that holds its number; None if there is none."""
        of_steps = {process: words for process, words in self.processes().items() if "SLURM_STEP_ID" in words}
        found = {process for process, words in of_steps.items() if words.get(variable) == str(number)}
        above = parents()  # of a rank: none of these
        return next((process for process in found if above.get(process) not in found), None)


class Cluster:
    """Starts the daemons; a context manager that ends them.

    Args:
        folder: for configuration, logs and state; its path must be short, as it holds a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen] = {}
        self.ports = {name: free_port() for name in ("slurmctld", *NODES)}
        self.env = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.pathsep.join([os.environ["PATH"], *SBIN]),
            "MASTER_ADDR": "127.0.0.1",  # the names of the nodes cannot be resolved
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> "Cluster":
        for name in ("state", "log", *NODES):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "slurm.conf").write_text(self.configuration())
        (self.folder / "cgroup.conf").write_text(self.cgroups())
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        try:
            self.start_munge()
            self.start("slurmctld", "-D")
            for node in NODES:
                self.start_node(node)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for number in self.call("squeue", "--noheader", "--format=%A", check=False).split():
            self.call("scancel", "--signal=KILL", "--full", number, check=False)
            self.call("scancel", number, check=False)
        for name in reversed(list(self.processes)):
            self.kill(name, signal.SIGTERM)

    def configuration(self) -> str:
        user, host = subprocess.check_output(["id", "-un"], text=True).strip(), socket.gethostname().partition(".")[0]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**21  # MiB, half of what there is
        options = {
            "ClusterName": "zoo",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder}/munge.socket,cred_expire=10",  # a requeued job waits so long
            "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",  # on loopback only
            "SlurmctldPort": self.ports["slurmctld"],
            "SlurmctldPidFile": f"{self.folder}/slurmctld.pid",
            "SlurmctldLogFile": f"{self.folder}/log/slurmctld",
            "SlurmdPidFile": f"{self.folder}/%n.pid",
            "SlurmdLogFile": f"{self.folder}/log/%n",
            "SlurmdSpoolDir": f"{self.folder}/%n",
            "StateSaveLocation": f"{self.folder}/state",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "GresTypes": "gpu",
            "SchedulerParameters": "sched_interval=2,bf_interval=2,batch_sched_delay=1",
            "JobRequeue": 1,
            "ReturnToService": 2,
            "KillWait": 5,
            "SlurmdTimeout": 15,  # a node that is silent for so long is dead
            "SlurmdParameters": "config_overrides",
        }
        lines = [f"{name}={value}" for name, value in options.items()]
        # Processors are counted, not reserved: the tests also run where there are fewer.
        common = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory={memory} Gres=gpu:2 State=UNKNOWN"
        lines += [f"NodeName={node} Port={self.ports[node]} {common}" for node in NODES]
        lines.append(f"PartitionName=main Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP")
        (self.folder / "gres.conf").write_text(
            "".join(f"NodeName={node} Name=gpu File=/dev/tty[{2 * i}-{2 * i + 1}]\n" for i, node in enumerate(NODES))
        )
        return "\n".join(lines) + "\n"

    def cgroups(self) -> str:
        """Newer versions want to be told that there are none; older ones do not know the word."""
        version = subprocess.check_output([str(program("slurmd")), "-V"], text=True).split()[1]
        return "CgroupPlugin=disabled\n" if tuple(map(int, version.split(".")[:2])) >= (23, 11) else ""

    def start(self, name: str, *options: str, as_name: str = "") -> None:
        with open(self.folder / "log" / f"{as_name or name}.out", "a") as log:
            self.processes[as_name or name] = subprocess.Popen(
                [str(program(name)), *options], env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def start_munge(self) -> None:
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "seed"}
        files["log-file"] = "log/munged"
        self.start(
            "munged", "--foreground", "--force", *(f"--{name}={self.folder / path}" for name, path in files.items())
        )
        self.wait_until((self.folder / "munge.socket").exists, "munged", 20)

    def start_node(self, node: str) -> None:
        """Starts the daemon of a node and waits until it is idle."""
        self.start("slurmd", "-D", "-N", node, as_name=node)
        self.wait_until(lambda: self.state_of(node) in ("idle", "mixed", "allocated"), self.logs, 60)

    def restart_node(self, node: str) -> None:
        """Starts a node that was dead, later than Slurm repeats what it could not tell it: to end the jobs it had."""
        time.sleep(FORGETS)
        self.start_node(node)

    def state_of(self, node: str) -> str:
        return self.call("sinfo", "--noheader", "--nodes", node, "--format=%T", check=False).strip()

    def kill_node(self, node: str) -> None:
        """Ends all that runs on a node at once, as a power failure does."""
        wanted = {"SLURMD_NODENAME": node, "SLURM_CONF": self.env["SLURM_CONF"]}
        above = parents()
        doomed = {process for process in above if environment(process).items() >= wanted.items()}
        doomed |= {parent for process in doomed if is_step_daemon(parent := above[process])}
        for process in (self.processes[node].pid, *doomed):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.processes.pop(node).wait()

    def kill(self, name: str, number: int) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def call(self, *command: str, check: bool = True, cwd: Path | None = None) -> str:
        try:
            done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=30, cwd=cwd)
        except subprocess.TimeoutExpired:
            if check:
                raise
            return ""
        assert not check or done.returncode == 0, f"{command}: {done.stderr}{self.logs()}"
        return done.stdout

    def submit(self, *command: str | Path, cwd: Path) -> Job:
        """Runs `sbatch` in a folder; the output of the job is `JOB.out` there."""
        number = self.call("sbatch", "--parsable", "--output=%j.out", *map(str, command), cwd=cwd).strip()
        return Job(self, number, cwd / f"{number}.out")

    def wait_until(self, is_so: Callable[[], bool], what: str | Callable[[], str], seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > end:
                raise TimeoutError(f"after {seconds} s: {what() if callable(what) else what}")
            time.sleep(0.2)

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        files = sorted(path for path in (self.folder / "log").iterdir() if path.is_file())
        return "".join(f"\n{path.name}:\n" + "\n".join(path.read_text().splitlines()[-15:]) for path in files)
