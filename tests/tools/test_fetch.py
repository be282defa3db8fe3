"""vendor/fetch.py on small repositories made here: both ways, every refusal, no network."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import tarfile

import pytest

PATH = "vendor/llama.cpp"
INSIDE = "llama_cpp_python-0.3.36/.git/modules/vendor/llama.cpp"
BACKEND = """\
import pathlib
def prepare_metadata_for_build_wheel(directory, settings=None):
    info = pathlib.Path(directory, "llama_cpp_python-0.3.36.dist-info")
    info.mkdir()
    text = "Metadata-Version: 2.1\\nName: llama_cpp_python\\nVersion: 0.3.36\\n"
    (info / "METADATA").write_text(text)
    return info.name
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def git(directory, *arguments):
    """Run git in *directory* and return what it prints."""
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=directory, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(repository, name, text):
    """Commit one file and return the commit."""
    (repository / name).write_text(text)
    git(repository, "add", name)
    git(repository, "commit", "--quiet", "--message", name)
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def plain_git(monkeypatch, tmp_path):
    """Git without this machine's settings, allowed to read repositories on the disk."""
    config = tmp_path / "gitconfig"
    config.write_text(
        "[user]\nname = t\nemail = t@example.org\n"
        '[protocol "file"]\nallow = always\n[init]\ndefaultBranch = main\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


@pytest.fixture
def upstream(tmp_path):
    """Stand in for llama.cpp: two commits, the first is the pin."""
    repository = tmp_path / "upstream"
    repository.mkdir()
    git(repository, "init", "--quiet")
    commit(repository, "llama.h", "int pinned;\n")
    commit(repository, "later.h", "int later;\n")
    return repository


@pytest.fixture
def pin(upstream):
    """Return the commit that the project records."""
    return git(upstream, "rev-parse", "HEAD~1")


@pytest.fixture
def project(tmp_path, upstream, pin):
    """Make a repository with the gitlink and an empty vendor/llama.cpp, like a fresh clone."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / ".gitmodules").write_text(
        f'[submodule "{PATH}"]\n\tpath = {PATH}\n\turl = {upstream.as_uri()}\n'
    )
    git(root, "add", ".gitmodules")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{pin},{PATH}")
    git(root, "commit", "--quiet", "--message", "pin")
    (root / PATH).mkdir(parents=True)
    return root


@pytest.fixture
def write_archive(tmp_path, fetch, monkeypatch):
    """Return a function that writes a source distribution and makes its hash the right one."""

    def write(git_dir=None, extra=()):
        path = tmp_path / "llama_cpp_python-0.3.36.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            top = "llama_cpp_python-0.3.36"
            for name, text in (("pyproject.toml", PYPROJECT), ("backend.py", BACKEND)):
                add_file(archive, tarfile.TarInfo(f"{top}/{name}"), text.encode())
            if git_dir is not None:
                archive.add(git_dir, INSIDE)
            for member in extra:
                add_file(archive, member, b"")
        monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
        return path

    return write


@pytest.fixture
def archive(write_archive, carried):
    """Write the source distribution that carries the pin."""
    return write_archive(carried)


@pytest.fixture
def index(archive, monkeypatch):
    """Let pip find the archive and ask no network."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))


def add_file(archive, member, content):
    """Add a member with *content*."""
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def carried(tmp_path, upstream, pin):
    """Make the git directory that an archive carries, with another machine's settings in it."""
    repository = tmp_path / "carried"
    repository.mkdir()
    git(repository, "init", "--quiet")
    git(repository, "fetch", "--quiet", upstream.as_uri(), "main")
    git(repository, "checkout", "--quiet", "--detach", pin)
    git(repository, "config", "url.https://evil.example/.insteadOf", "https://github.com/")
    return repository / ".git"


def state(root):
    """Return what `git submodule status` says: a blank first means checked out at the pin."""
    done = subprocess.run(
        ["git", "submodule", "status"], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout[:41]


def assert_untouched(root):
    """Nothing was checked out and no temporary directory was left."""
    assert list((root / PATH).iterdir()) == []
    modules = root / ".git" / "modules" / "vendor"
    assert not modules.exists() or list(modules.iterdir()) == []


def test_git_brings_the_pin(fetch, project, pin):
    """The usual way checks out the recorded commit, not the newest one."""
    fetch.fetch(fetch.read_submodule(project))
    assert state(project) == f" {pin}"
    assert not (project / PATH / "later.h").exists()


def test_a_checkout_at_the_pin_is_left_alone(fetch, project, capsys):
    """The second run says so and asks no host."""
    fetch.fetch(fetch.read_submodule(project))
    (project / ".gitmodules").write_text(
        f'[submodule "{PATH}"]\n\tpath = {PATH}\n\turl = file:///nowhere\n'
    )
    capsys.readouterr()
    fetch.fetch(fetch.read_submodule(project))
    assert capsys.readouterr().out.startswith("vendor/llama.cpp is at the pin ")


@pytest.mark.usefixtures("index")
def test_the_index_is_taken_when_the_host_is_away(fetch, project, pin, capsys):
    """It says why, and pip brings the archive (from a directory here)."""
    git(project, "config", "--file", ".gitmodules", f"submodule.{PATH}.url", "file:///nowhere")
    fetch.fetch(fetch.read_submodule(project))
    assert "the git host cannot be reached" in capsys.readouterr().out
    assert state(project) == f" {pin}"


@pytest.mark.usefixtures("index")
def test_a_host_that_does_not_answer_is_given_up(fetch, project, pin, monkeypatch, capsys):
    """Git would wait for minutes."""
    monkeypatch.setattr(fetch, "PROBE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/llama.cpp.git"
        git(project, "config", "--file", ".gitmodules", f"submodule.{PATH}.url", url)
        fetch.fetch(fetch.read_submodule(project))
    assert "git had no answer within" in capsys.readouterr().out
    assert state(project) == f" {pin}"


@pytest.mark.usefixtures("index")
def test_pip_refuses_another_hash(fetch, project, monkeypatch):
    """An index with another file under the same name is named as the reason."""
    monkeypatch.setattr(fetch, "SHA256", "0" * 64)
    with pytest.raises(fetch.FetchError, match="with another SHA-256"):
        fetch.fetch(fetch.read_submodule(project), from_index=True)
    assert_untouched(project)


@pytest.mark.usefixtures("index")
def test_an_index_without_the_package_is_named(fetch, project, archive):
    """The error holds pip's own reason."""
    archive.unlink()
    with pytest.raises(fetch.FetchError, match="No matching distribution found for llama_cpp"):
        fetch.fetch(fetch.read_submodule(project), from_index=True)


def test_an_archive_brings_the_pin(fetch, project, pin, archive):
    """A file at hand needs neither git host nor index."""
    fetch.fetch(fetch.read_submodule(project), archive=archive)
    assert state(project) == f" {pin}"
    assert (project / PATH / "llama.h").read_text() == "int pinned;\n"


def test_no_setting_of_the_archive_is_kept(fetch, project, upstream, archive):
    """The config is written anew: the official address and nothing of the other machine."""
    fetch.fetch(fetch.read_submodule(project), archive=archive)
    git_dir = project / ".git" / "modules" / PATH
    assert "evil" not in (git_dir / "config").read_text()
    assert git(project / PATH, "remote", "get-url", "origin") == upstream.as_uri()
    assert not (git_dir / "hooks").exists()


def test_a_linked_worktree_has_its_own_checkout(fetch, project, pin, archive):
    """The git directory goes where git looks for it in a worktree."""
    linked = project.parent / "linked"
    git(project, "worktree", "add", "--quiet", str(linked))
    fetch.fetch(fetch.read_submodule(linked), archive=archive)
    assert state(linked) == f" {pin}"


def test_the_environment_of_a_git_hook_is_ignored(fetch, project, pin, monkeypatch, tmp_path):
    """GIT_DIR of another repository does not lead git astray."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    fetch.fetch(fetch.read_submodule(project))
    monkeypatch.delenv("GIT_DIR")
    assert state(project) == f" {pin}"


def test_an_archive_with_another_hash_is_refused(fetch, project, archive, monkeypatch):
    """It is not opened, and nothing is left."""
    monkeypatch.setattr(fetch, "SHA256", "0" * 64)
    with pytest.raises(fetch.FetchError, match="it is another file"):
        fetch.fetch(fetch.read_submodule(project), archive=archive)
    assert_untouched(project)


@pytest.mark.parametrize(
    "name",
    [f"{INSIDE}/../../../../../escaped", "/tmp/escaped", "llama_cpp_python-0.3.36/../escaped"],
)
def test_an_unsafe_member_name_is_refused(fetch, project, carried, write_archive, name):
    """A name that leads out of the directory stops everything, and nothing is left."""
    archive = write_archive(carried, [tarfile.TarInfo(name)])
    with pytest.raises(fetch.FetchError, match="unsafe member name"):
        fetch.fetch(fetch.read_submodule(project), archive=archive)
    assert_untouched(project)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_in_the_git_directory_is_refused(fetch, project, carried, write_archive, kind):
    """Only plain files are unpacked."""
    member = tarfile.TarInfo(f"{INSIDE}/objects/link")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(fetch.FetchError, match="a link where a file must be"):
        fetch.fetch(fetch.read_submodule(project), archive=write_archive(carried, [member]))
    assert_untouched(project)


def test_an_archive_of_another_commit_is_refused(fetch, project, upstream, carried, write_archive):
    """The pin is what the repository records, whatever the archive holds."""
    newer = git(upstream, "rev-parse", "HEAD")
    git(carried.parent, "checkout", "--quiet", "--detach", newer)
    with pytest.raises(fetch.FetchError, match=f"carries llama.cpp {newer}, the pin is"):
        fetch.fetch(fetch.read_submodule(project), archive=write_archive(carried))
    assert_untouched(project)


def test_a_changed_object_is_refused(fetch, project, carried, write_archive):
    """Git compares each object with its name before anything is put in place."""
    names = [git(carried.parent, "rev-parse", at) for at in ("HEAD:llama.h", "HEAD")]
    header, other = (carried / "objects" / name[:2] / name[2:] for name in names)
    header.unlink()
    header.write_bytes(other.read_bytes())
    with pytest.raises(fetch.FetchError, match="`git fsck` failed: error"):
        fetch.fetch(fetch.read_submodule(project), archive=write_archive(carried))
    assert_untouched(project)


def test_local_changes_are_named_and_kept(fetch, project):
    """A changed file is nobody's to drop."""
    submodule = fetch.read_submodule(project)
    fetch.fetch(submodule)
    (project / PATH / "llama.h").write_text("mine\n")
    with pytest.raises(fetch.FetchError, match=r"1 local change.*llama\.h"):
        fetch.fetch(submodule)
    assert (project / PATH / "llama.h").read_text() == "mine\n"


def test_files_that_are_no_checkout_are_kept(fetch, project):
    """A directory filled by hand is not overwritten."""
    (project / PATH / "llama.h").write_text("mine\n")
    with pytest.raises(fetch.FetchError, match="is no git checkout"):
        fetch.fetch(fetch.read_submodule(project))
    assert (project / PATH / "llama.h").read_text() == "mine\n"


def test_an_interrupted_checkout_is_taken_up_again(fetch, project, pin):
    """Git writes the index last, so files without one are half a checkout."""
    submodule = fetch.read_submodule(project)
    fetch.fetch(submodule)
    (submodule.git_dir / "index").unlink()
    (project / PATH / "llama.h").write_text("half a fi")
    fetch.fetch(submodule)
    assert state(project) == f" {pin}"


def test_a_new_pin_keeps_the_commits_that_are_there(
    fetch, project, upstream, carried, write_archive
):
    """When the pin moves the archive's commit is added to the git directory."""
    fetch.fetch(fetch.read_submodule(project), archive=write_archive(carried))
    mine = commit(project / PATH, "mine.h", "int mine;\n")
    newer = commit(upstream, "newest.h", "int newest;\n")
    git(project, "update-index", "--cacheinfo", f"160000,{newer},{PATH}")
    git(carried.parent, "fetch", "--quiet", upstream.as_uri(), "main")
    git(carried.parent, "checkout", "--quiet", "--detach", newer)
    fetch.fetch(fetch.read_submodule(project), archive=write_archive(carried))
    assert state(project) == f" {newer}"
    assert git(project / PATH, "cat-file", "-t", mine) == "commit"


def test_a_full_disk_is_said_beforehand(fetch, project, monkeypatch):
    """The error holds both numbers."""
    monkeypatch.setattr(fetch, "DISK_BYTES", 10**18)
    with pytest.raises(fetch.FetchError, match="needs 1000000000000 MB of disk and"):
        fetch.fetch(fetch.read_submodule(project))
    assert_untouched(project)


def test_a_directory_without_git_is_said(fetch, tmp_path):
    """An unpacked archive of pyllama has no pin to read."""
    with pytest.raises(fetch.FetchError, match="is not a git checkout"):
        fetch.read_submodule(tmp_path)


def test_a_machine_without_git_is_said(fetch, project, monkeypatch, tmp_path):
    """The sentence names what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetch.FetchError, match="git is not installed"):
        fetch.read_submodule(project)


def test_a_python_without_pip_is_said(fetch):
    """The words of the interpreter become a sentence that names `make setup`."""
    assert "make setup" in fetch.explain_pip("/usr/bin/python3: No module named pip\n")
