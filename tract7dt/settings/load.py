"""Reading a configuration: from a file, from a mapping, and with single keys replaced."""

from __future__ import annotations

import logging
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tract7dt.errors import ConfigError
from tract7dt.settings.describe import key_table, section_at
from tract7dt.settings.legacy import without_legacy_keys
from tract7dt.settings.paths import output_problems, relative_outputs, resolve_paths
from tract7dt.settings.problems import find_problems
from tract7dt.settings.root import Settings
from tract7dt.settings.yamlfile import YamlText, parse_value, parse_yaml, read_text

__all__ = ["LoadedSettings", "apply_overrides", "load_settings", "parse_overrides", "settings_from_dict"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """A configuration and where it came from.

    Attributes
    ----------
    settings : Settings
        Checked, with absolute paths.
    warnings : list of str
        Legacy keys and settings that deserve a word; not logged yet.
    source : str
        Text of the file, "" if the configuration came from a mapping.
    path : Path or None
        The file; None if it came from a mapping or a URL.
    """

    settings: Settings
    warnings: list[str]
    source: str = ""
    path: Path | None = None


def load_settings(path: str | Path) -> LoadedSettings:
    """Read and check a YAML configuration.

    Parameters
    ----------
    path : str or Path
        YAML file, local or any URL that fsspec opens. Relative inputs and ``outputs.work_dir`` in it are
        relative to its folder; in a file from a URL, to the working directory.

    Raises
    ------
    ConfigError
        If the file cannot be read, or any key in it is wrong; one line for each problem, with file, line
        and path of the key.
    """
    if "://" in str(path):
        return _from_url(str(path))
    file = Path(path).expanduser()
    text = read_text(file)
    parsed = parse_yaml(text, str(file))
    settings, legacy = _build(parsed, file.resolve().parent, str(file))
    return LoadedSettings(settings, legacy + _doubts(settings), text, file.resolve())


def _from_url(url: str) -> LoadedSettings:
    if url.startswith("file://"):
        return load_settings(urllib.parse.unquote(url.removeprefix("file://")))
    text = read_text(url)
    settings, legacy = _build(parse_yaml(text, url), Path.cwd(), url)
    return LoadedSettings(settings, legacy + _doubts(settings), text)


def settings_from_dict(
    values: Mapping[str, Any], base_dir: str | Path, source: str = "configuration"
) -> LoadedSettings:
    """Check a configuration that is already a mapping.

    Parameters
    ----------
    values : mapping
        Sections and keys as in the YAML file.
    base_dir : str or Path
        What relative inputs and ``outputs.work_dir`` are relative to.
    source : str, optional
        Name for messages.

    Raises
    ------
    ConfigError
        As :func:`load_settings`.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: a configuration is a mapping of sections")
    settings, legacy = _build(YamlText(dict(values), {}, []), Path(base_dir), source)
    return LoadedSettings(settings, legacy + _doubts(settings))


def apply_overrides(
    settings: Settings, overrides: Mapping[str, Any], base_dir: str | Path | None = None
) -> Settings:
    """Settings with some keys replaced.

    Parameters
    ----------
    settings : Settings
        With absolute paths; stays as it is.
    overrides : mapping
        Dotted key -> value, as ``{"zp.clip_sigma": 2.5}``; the value of a section is a mapping of the keys
        of it to replace. Outputs follow a new ``outputs.work_dir``.
    base_dir : str or Path, optional
        What relative inputs and ``outputs.work_dir`` among the overrides are relative to; the working
        directory by default.

    Raises
    ------
    ConfigError
        One line for each override that is unknown, of a wrong type or out of range.
    """
    values = relative_outputs(settings).model_dump(mode="json")
    for path, value in overrides.items():
        _put(values, (), path.split("."), value)
    changed, legacy = _build(YamlText(values, {}, []), Path(base_dir or "."), "overrides")
    for warning in legacy:
        log.warning("%s", warning)
    return changed.with_base_dir(settings.base_dir)


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """Overrides from ``key=value`` texts; the value is read as YAML (``zp.clip_sigma=2.5``).

    Raises
    ------
    ConfigError
        If a text has no ``=`` or its value is not YAML.
    """
    overrides = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"overrides: {item!r} is not of the form section.key=value")
        try:
            overrides[path.strip()] = parse_value(text)
        except ConfigError:
            raise ConfigError(f"overrides: {path.strip()}: the value {text!r} is not valid YAML") from None
    return overrides


def _put(values: dict[str, Any], parent: tuple[str, ...], path: list[str], value: Any) -> None:
    """Replace the value at ``path`` below ``parent``; of a section that is given, key by key."""
    name, rest = path[0], path[1:]
    dotted = ".".join((*parent, name))
    is_section = section_at(dotted) is not None
    if rest and (is_section or isinstance(values.get(name), dict)):
        _put(values[name], (*parent, name), rest, value)
    elif rest and dotted in key_table():
        values[name] = {".".join(rest): value}  # right for a mapping, else the check says what is allowed
    elif rest:
        values[".".join(path)] = value  # the check says that there is no such key
    elif is_section and isinstance(value, Mapping):
        for inner, inner_value in value.items():
            _put(values[name], (*parent, name), [str(inner)], inner_value)
    else:
        values[name] = value


def _build(parsed: YamlText, base_dir: Path, source: str) -> tuple[Settings, list[str]]:
    values, warnings = without_legacy_keys(parsed.values)
    problems = [
        (second, f"{source}:{second}: {path}: given twice (first in line {first})")
        for path, first, second in parsed.duplicates
    ]
    for path, message in find_problems(values).items():
        line = parsed.lines.get(path, 0)
        where = f"{source}:{line}" if line else source
        problems.append((line, f"{where}: {'.'.join(path)}: {message}"))
    if problems:
        raise ConfigError("\n".join(text for _, text in sorted(problems, key=lambda p: p[0])))
    settings = resolve_paths(Settings.model_validate(values), base_dir)
    if wrong := output_problems(settings):
        lines = [(parsed.lines.get(path, 0), path, message) for path, message in wrong]
        raise ConfigError(
            "\n".join(f"{source}{f':{n}' if n else ''}: {'.'.join(path)}: {text}" for n, path, text in lines)
        )
    return settings, warnings


def _doubts(settings: Settings) -> list[str]:
    """Combinations that are allowed but hardly meant."""
    doubts = []
    if settings.zp.enabled and settings.inputs.gaiaxp_synphot_csv is None:
        doubts.append(
            "zp.enabled is true, but inputs.gaiaxp_synphot_csv is not given: without it there are no stars "
            "to measure the zero point with"
        )
    epsf = settings.epsf
    if epsf.psfstar_mode == "gaia" and not (epsf.use_gaiaxp and settings.inputs.gaiaxp_synphot_csv):
        doubts.append(
            "epsf.psfstar_mode is gaia, but epsf.use_gaiaxp is false or inputs.gaiaxp_synphot_csv is not "
            "given: there are no stars to build ePSFs from"
        )
    if epsf.final_psf_size > epsf.cutout_size:
        doubts.append(
            f"epsf.final_psf_size ({epsf.final_psf_size}) is larger than epsf.cutout_size "
            f"({epsf.cutout_size}): PSF stamps are {epsf.cutout_size} pixels wide"
        )
    return doubts
