"""Things from outside: what `package.module:Name` or `file.py:Name` means. Imports no torch by itself.

What is trusted: modules that Python finds here anyway, files of the working folder (where the command is started), and
files that are named by their whole path; never what lies in the folder of a run or an artifact, which may be someone
else's. Nothing is fetched. A run's config.json that names custom members has them imported when the run is trained, resumed or
exported anew, not when it is read. A run of a method from outside names the method's module, which is imported whenever that run
is opened: shown, sampled from, resumed. So open runs of others as you would run their programs, where they name modules of yours.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from studio.errors import StudioError
from studio.settings.custom import Custom

FORMS = "give `package.module:Name`, or `file.py:Name` for a file in the folder where the command is started"
MARKS = ("config.json", "method.json")
"""Files by which the folder of a run or an artifact is known."""
PREFIX = "outside_"
"""How modules of files begin that Python does not find by itself."""
LISTED = 8
"""Names of a module told to one who asked for another."""
_BROUGHT: set[str] = set()
"""Folders that Python looks into because something was named here."""


def load(path: str, *, what: str, field: str) -> Callable[..., Any]:
    """The class or function that a path names.

    Args:
        path: `package.module:Name`, `file.py:Name`, or `file:Name`; the folder where the command was started counts as a
            place of modules, and a file may be named by its whole path.
        what: What it is to be, as a sentence begins: Reward.
        field: Setting that names it.

    Raises:
        StudioError: The path has another form, leads nowhere, breaks while it is imported, or is nothing to call.
    """
    place, name = _parts(path, what, field)
    found_in = module(place, what=what, field=field)
    try:
        found = getattr(found_in, name)
    except AttributeError:
        raise _no_such_name(found_in, path, name, what, field) from None
    if not callable(found):
        raise StudioError(
            f"{what} {path!r} is a {type(found).__name__}; name a function or a class.", field=field
        )
    if isinstance(found, (type, FunctionType, BuiltinFunctionType)) and _of_python(found.__module__):
        raise _python(path, what, field)
    return found


def module(place: str, *, what: str, field: str) -> ModuleType:
    """The module of a dotted name, or of a file; the same one at every call, in every process.

    Raises:
        StudioError: There is none, or it breaks while it is imported.
    """
    require(place, what=what, field=field)
    try:
        return _imported(place)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            raise _nowhere(place, what, field) from None
        raise StudioError(
            f"{what}: {place!r} breaks while it is imported ({type(error).__name__}: {error}{_line(error)}); correct it.",
            field=field,
        ) from error


def require(place: str, *, what: str, field: str) -> None:
    """Refuse a place (with or without `:Name`) that leads nowhere, without importing it.

    Raises:
        StudioError: There is no such file, or no package of that name.
    """
    place = _parts(place, what, field)[0] if ":" in place else place
    file = _file(place) if _is_file(place) else Path.cwd() / place.replace(".", "/")
    if strange := [each for each in _around(file) if any((each / mark).is_file() for mark in MARKS)]:
        raise StudioError(
            f"{what}: {place!r} lies in {strange[0]}, the folder of a run or an artifact, whose code is not run; put it "
            "elsewhere if you trust it.",
            field=field,
        )
    if _is_file(place):
        if not file.is_file():
            raise StudioError(f"{what}: there is no file {str(file)!r}; {FORMS}.", field=field)
        return
    if _of_python(place):
        raise _python(place, what, field)
    _look_here()
    top = place.partition(".")[0]
    try:
        known = top in sys.modules or importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        known = False
    if not known:
        raise _nowhere(place, what, field)


def made(custom: Custom, *, what: str, field: str) -> Callable[..., Any]:
    """What settings name, ready to be called: a class's instance, or a function with its options put in.

    Raises:
        StudioError: It cannot be found (see `load`), or does not take its options.
    """
    found = load(custom.path, what=what, field=f"{field}.path")
    if isinstance(found, type):
        thing = called(custom, what=what, field=field)
        if not callable(thing):
            raise StudioError(
                f"{what} {custom.path!r} is a class whose instances cannot be called; give it a __call__.",
                field=f"{field}.path",
            )
        return thing
    try:
        inspect.signature(found).bind_partial(**custom.options)
    except ValueError:  # built in, without a signature
        pass
    except TypeError as error:
        raise _refused(custom, what, field, error) from None
    return functools.partial(found, **custom.options) if custom.options else found


def called(custom: Custom, *given: Any, what: str, field: str, **named: Any) -> Any:
    """What the class or function gives for its options and what is given besides.

    Raises:
        StudioError: It cannot be found (see `load`), or fails.
    """
    found = load(custom.path, what=what, field=f"{field}.path")
    try:
        return found(*given, **{**named, **custom.options})
    except StudioError:
        raise
    except Exception as error:
        raise _refused(custom, what, field, error) from error


def _parts(path: str, what: str, field: str) -> tuple[str, str]:
    place, _, name = path.rpartition(":")
    if not place or not name.isidentifier():
        raise StudioError(
            f"{what} {path!r} does not say where it is and what it is called; {FORMS}.", field=field
        )
    return place, name


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _file(place: str) -> Path:
    path = Path(place).expanduser()
    return (path if path.suffix == ".py" else path.with_name(f"{path.name}.py")).resolve()


def _around(file: Path) -> list[Path]:
    """The folders around a file, less the working folder and those that it lies in."""
    return [each for each in file.parents if each != Path.cwd() and each not in Path.cwd().parents]


def _look_here() -> None:
    """Count the working folder as a place of modules, behind all others."""
    _bring(Path.cwd())
    importlib.invalidate_caches()


def _imported(place: str) -> ModuleType:
    _look_here()
    if not _is_file(place):
        return importlib.import_module(place)
    file = _file(place)
    if name := _dotted(file, _look_around(file)):
        return importlib.import_module(name)
    name = f"{PREFIX}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        _run(name, file)
    return sys.modules[name]


def root(file: Path) -> Path:
    """The folder from which a file's package has the name that its own modules call it; of a loose file, its folder."""
    return next(folder for folder in file.parents if not (folder / "__init__.py").is_file())


def brought(file: Path) -> bool:
    """Whether Python finds a file because it was named here by its path, and not by itself or from the working folder."""
    return root(file) != Path.cwd() and str(root(file)) in _BROUGHT


def _look_around(file: Path) -> Path:
    """Where names of a file's modules begin: a package elsewhere is made to be found, behind all others."""
    found = root(file)
    if found == file.parent:
        return Path.cwd()
    _bring(found)
    return found


def _bring(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        _BROUGHT.add(str(folder))


def _dotted(file: Path, start: Path) -> str:
    """Name by which Python itself imports this very file, counted from a folder; empty if there is none."""
    if not file.is_relative_to(start):
        return ""
    parts = file.relative_to(start).with_suffix("").parts
    name = ".".join(parts)
    if not all(part.isidentifier() for part in parts):
        return ""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return ""
    return name if spec and spec.origin and Path(spec.origin).resolve() == file else ""


def _run(name: str, file: Path) -> None:
    """Import a file under a name of its own; one that breaks leaves nothing behind."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[name])
    except BaseException:
        del sys.modules[name]
        raise


def _line(error: BaseException) -> str:
    """The last line of the person's own code that an error passed; a syntax error tells it by itself."""
    if isinstance(error, SyntaxError):
        return ""
    ours = ("<frozen", __file__, str(importlib.__file__))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    return f"; {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def _of_python(module: str | None) -> bool:
    """Whether a module comes with Python: nothing in there is made to extend the studio, and much of it runs programs."""
    return bool(module) and str(module).partition(".")[0] in sys.stdlib_module_names


def _python(place: str, what: str, field: str) -> StudioError:
    return StudioError(
        f"{what}: {place!r} is of Python itself, which is no code of yours; {FORMS}.", field=field
    )


def _nowhere(place: str, what: str, field: str) -> StudioError:
    return StudioError(
        f"{what}: there is neither a module {place!r} nor a file {place.replace('.', '/')}.py in {Path.cwd()}; {FORMS}.",
        field=field,
    )


def _no_such_name(found_in: ModuleType, path: str, name: str, what: str, field: str) -> StudioError:
    """Offers the nearest of what the module itself defines."""
    made_here = {
        key: value for key, value in vars(found_in).items() if isinstance(value, (type, FunctionType))
    }
    own = [key for key, value in made_here.items() if value.__module__ == found_in.__name__ and key[0] != "_"]
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.5) or difflib.get_close_matches(
        name, dir(found_in), n=1
    )
    hint = (
        f"did you mean {near[0]!r}?"
        if near
        else f"it defines {', '.join(own[:LISTED]) or 'nothing to call'}."
    )
    return StudioError(f"{what} {path!r}: the module has no {name!r}; {hint}", field=field)


def _refused(custom: Custom, what: str, field: str, error: Exception) -> StudioError:
    return StudioError(
        f"{what} {custom.path!r} fails with the options {custom.options} ({type(error).__name__}: {error}{_line(error)}).",
        field=f"{field}.options",
    )
