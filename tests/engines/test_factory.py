"""One engine per process, kept as long as the settings are the same."""

from sparta.engines.factory import close_engine, open_engine
from sparta.engines.hf.engine import HfEngine
from sparta.engines.scripted import ScriptedEngine
from sparta.recipes.engine import EngineSettings


def test_equal_settings_share_the_engine_and_others_replace_it() -> None:
    first = open_engine(EngineSettings(kind="scripted"))
    assert isinstance(first, ScriptedEngine)
    assert open_engine(EngineSettings(kind="scripted")) is first
    second = open_engine(EngineSettings())
    assert isinstance(second, HfEngine)
    assert open_engine(EngineSettings(), trust_remote_code=True) is not second
    close_engine()
    close_engine()
    assert open_engine(EngineSettings(kind="scripted")) is not first
    close_engine()
