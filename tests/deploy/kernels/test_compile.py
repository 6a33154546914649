import logging
import subprocess
import sys

import pytest

pytest.importorskip("llvmlite", reason="compiled kernels need llvmlite: pip install 'densebnn[cpu]'")

from densebnn.deploy.kernels import available, compile
from densebnn.deploy.kernels.compile import TARGETS, functions, missing, write_assembly
from densebnn.registry import UserError

HERE = [name for name in TARGETS if name in available()]


@pytest.mark.parametrize(
    ("name", "instructions"),
    [("avx512", ["vpopcntd\t%zmm"]), ("avx2", ["vpshufb", "%ymm"]), ("neon", ["cnt\tv", "udot"])],
)
def test_the_inner_loop_is_made_of_the_instructions_it_is_meant_for(name, instructions):
    text = write_assembly(TARGETS[name])
    assert [part for part in instructions if part not in text] == []


def test_a_target_keeps_to_its_own_instructions():
    text = write_assembly(TARGETS["avx2"])
    assert "zmm" not in text
    assert "vpopcnt" not in text
    assert "%k1" not in text


def test_a_foreign_processor_is_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "family riscv64, not x86_64" in missing("avx2")
    with pytest.raises(UserError, match="'avx2' cannot run here"):
        functions.__wrapped__("avx2")


def test_missing_instructions_are_named(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(compile.llvm, "get_host_cpu_features", lambda: {"avx2": True, "fma": True, "bmi2": False})
    assert missing("avx2") == "this processor lacks bmi2"


@pytest.mark.skipif(not HERE, reason="none of the instruction sets is here")
class TestObjectCode:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DENSEBNN_CACHE", str(tmp_path))
        return tmp_path / "kernels"

    def test_it_is_kept_and_found_by_another_process(self, cache):
        code = f"from densebnn.deploy.kernels import compile; compile.functions({HERE[0]!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        (file,) = cache.iterdir()
        without_compiler = code.replace(";", "; compile.object_code = None;")
        subprocess.run([sys.executable, "-c", without_compiler], check=True)
        assert list(cache.iterdir()) == [file]
        file.unlink()
        assert subprocess.run([sys.executable, "-c", without_compiler], capture_output=True).returncode != 0

    def test_damage_is_noticed_and_mended(self, cache):
        target = TARGETS[HERE[0]]
        code = compile._cached(target)
        (file,) = cache.iterdir()
        whole = file.read_bytes()
        for damaged in (b"", whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
            file.write_bytes(damaged)
            assert compile._cached(target) == code
            assert file.read_bytes() == whole

    def test_a_folder_that_cannot_be_written_only_costs_time(self, tmp_path, monkeypatch, caplog):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("DENSEBNN_CACHE", str(tmp_path / "file"))
        with caplog.at_level(logging.INFO):
            assert compile._cached(TARGETS[HERE[0]])
        assert "compiled anew by each process" in caplog.text

    def test_other_sources_have_another_name(self, monkeypatch):
        before = compile._key(TARGETS[HERE[0]])
        assert compile._key(TARGETS["neon"]) != before
        monkeypatch.setattr(compile.llvm, "llvm_version_info", (0, 0, 0))
        assert compile._key(TARGETS[HERE[0]]) != before
