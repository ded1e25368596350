"""Jobs of the app that are one call: what a run would need, evaluations, exports, looks at data, captions."""

from pathlib import Path
from typing import Any

from studio.catalog.run import Run
from studio.queue.jobs import Job


def do(job: Job, folder: Path) -> dict[str, Any]:
    """Do such a job; gives what the page shows of it.

    Args:
        job: What to do.
        folder: The job's own folder, for files that the page shows.
    """
    match job.kind:
        case "plan":
            return _plan(job)
        case "export":
            return _export(job)
        case "data":
            from studio.data.preview import look

            return look(job.payload["folder"], job.payload["size"], folder)
        case "caption":
            return _caption(job)
        case _:
            return _evaluate(job)


def _plan(job: Job) -> dict[str, Any]:
    from studio.training.plan import plan

    gpu = float(job.payload["gpu"])
    found = plan(Run.from_dict(job.payload["run"]), gpu=gpu)
    return {"lines": found.lines(), "fits": found.fits, "advice": found.advice, "gpu": gpu}


def _caption(job: Job) -> dict[str, Any]:
    from studio.chat.caption import caption
    from studio.chat.config import Captioning
    from studio.settings.serial import from_dict

    written = caption(job.payload["folder"], from_dict(Captioning, job.payload["settings"]))
    return {"captions": [[str(each.path), each.text] for each in written]}


def _evaluate(job: Job) -> dict[str, Any]:
    from studio.evaluation import nullspace, robustness, vlm
    from studio.evaluation import subject as evaluate
    from studio.matching.config import VlmEval
    from studio.metrics import table
    from studio.metrics.config import SubjectEval
    from studio.reports.report import summary
    from studio.settings.serial import from_dict
    from studio.vision.config import Nullspace, Robustness

    match job.kind:
        case "subject":
            judged = evaluate.evaluate(from_dict(SubjectEval, job.payload))
            told, report = summary(judged.rows), judged.report
            return {"report": str(report.resolve()), "summary": told, "table": table.lines(judged.rows)}
        case "robustness":
            found = robustness.evaluate(from_dict(Robustness, job.payload))
            report, numbers = found.report, [[n, f"{v:.4f}"] for n, v in found.numbers.items()]
            return {"report": str(report.resolve()), "summary": "; ".join(found.signs), "table": numbers}
        case "vlm":
            known = vlm.evaluate(from_dict(VlmEval, job.payload))
            return {"report": str(known.report.resolve()), "summary": known.told(), "table": known.rows()}
        case _:
            seen = nullspace.analyze(from_dict(Nullspace, job.payload))
            told = f"{seen.values['nullity']} of {seen.values['inputs']} directions of a patch are invisible."
            return {"report": str(seen.report.resolve()), "summary": told, "table": []}


def _export(job: Job) -> dict[str, Any]:
    from studio.records import runs
    from studio.settings import serial
    from studio.training.export import export_again

    folder, run = runs.open_run(job.payload["run"])
    if formats := job.payload["export"]:
        run = Run.from_dict(serial.merge(run.to_dict(), {"method": {"export": formats}}))
    return {"files": export_again(folder, run)}
