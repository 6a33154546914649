"""Predictions for pictures and videos of one's own, as files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from densebnn.atomic import atomic_path, write_json, writing_to
from densebnn.deploy import PretrainedPredictor
from densebnn.engine.inputs import Broken, Frame, find_inputs, is_video, output_names, read_frames, read_picture
from densebnn.engine.predict_config import PredictConfig
from densebnn.registry import UserError
from densebnn.tasks.outputs import Output, outputs_of
from densebnn.tasks.pictures import class_colours

__all__ = ["Predictions", "open_predictor", "predict_files"]

_LOG = logging.getLogger(__name__)
Told = dict[str, Any]


@dataclass(frozen=True)
class Predictions:
    """What came of some inputs; `predictions.json` in the folder tells the same.

    Attributes:
        folder: where the files are.
        done: of each input that was read `input`, `size` and `files`.
        left_out: of each that was not, or not to its end, `input` and `reason`.
    """

    folder: Path
    done: list[Told]
    left_out: list[Told]


def open_predictor(path: Path | None) -> PretrainedPredictor:
    """Open a finished run of finetune_nyud.py, a folder of `save_pretrained`, or a packed file that says its tasks.

    Raises:
        UserError: it is none of these, or it is damaged.
    """
    if path is None:
        raise UserError("no run given: --run RUN, the folder of a finished run of finetune_nyud.py")
    if path.is_file():
        return PretrainedPredictor.from_packed(path)
    inside = path / "pretrained"
    if (path / "config.yaml").is_file() and not inside.is_dir():
        raise UserError(f"{path} holds no pretrained/: expected a finished run of finetune_nyud.py")
    return PretrainedPredictor.from_pretrained(inside if inside.is_dir() else path)


def predict_files(config: PredictConfig, device: torch.device) -> Predictions:
    """Predict a picture, a video, or the pictures and videos of a folder, and write what comes of them.

    Raises:
        UserError: no such input, or none in the folder; no such predictor, or a broken one; the output cannot be
            written; or not a single input could be read.
    """
    files = find_inputs(config.input)
    net = open_predictor(config.run)
    net.model.to(device)
    out = config.out or _default_out(config.run)
    if files[0].parent.resolve() == out.resolve():
        raise UserError(f"{out} is the folder of the inputs; choose another one with --out")
    with writing_to(out, inside=out.parent):
        out.mkdir(parents=True, exist_ok=True)
    job, done, left_out = _Job(net, config, out), [], []
    for file, name in zip(files, output_names(files), strict=True):
        shown = os.fsencode(file).decode("utf-8", "replace")
        told, reason = (job.video if is_video(file) else job.picture)(file, name)
        if told["files"]:
            done.append({"input": shown, **told})
        if reason:
            left_out.append({"input": shown, "reason": reason})
            _LOG.warning("%s: %s", shown, reason)
    if not done:
        others = f"; nor could {len(left_out) - 1} others be read" if len(left_out) > 1 else ""
        raise UserError(f"{left_out[0]['input']}: {left_out[0]['reason']}{others}")
    write_json(out / "predictions.json", {**_about(net), "predicted": done, "left_out": left_out})
    return Predictions(out, done, left_out)


@dataclass(frozen=True)
class _Job:
    """What is done to every input.

    Attributes:
        net: the predictor.
        config: of the tool.
        out: folder of the files.
    """

    net: PretrainedPredictor
    config: PredictConfig
    out: Path

    def picture(self, file: Path, name: str) -> tuple[Told, str | None]:
        """Predict a picture; return what was written, and why it was not."""
        try:
            image = read_picture(file, self.config.max_pixels)
        except Broken as reason:
            return {"files": []}, str(reason)
        files = [self._write(name, output) for output in self._outputs(image, self.config.metres)]
        return {"size": list(image.shape[:2]), "files": files}, None

    def video(self, file: Path, name: str) -> tuple[Told, str | None]:
        """Predict the frames of a video; return what was written, and why not all of it could be read."""
        told: list[Told] = []
        sizes: set[tuple[int, ...]] = set()
        reason, metres = None, self.config.metres
        with self._numbered(name, told) if self.config.frames else self._videos(name, told) as write:
            try:
                for frame in read_frames(file, self.config.max_pixels, self.config.every):
                    outputs = self._outputs(frame.pixels, metres)
                    # The colours of the first frame's depths are those of all, or they would flicker.
                    metres = metres or next(
                        ((o.about["red"], o.about["blue"]) for o in outputs if o.name == "depth"), None
                    )
                    write(frame, outputs)
                    sizes.add(frame.pixels.shape[:2])
            except Broken as error:
                reason = str(error)
        if not sizes:
            return {"files": []}, reason or "it has no frames"
        return {"size": list(sizes.pop()), "files": told}, reason

    def _outputs(self, image: np.ndarray, metres: tuple[float, float] | None) -> list[Output]:
        found = []
        for task, prediction in self.net.predict(image).items():
            if not bool(torch.isfinite(prediction).all()):
                raise UserError(f"the network predicts NaN or infinite values for {task}; its weights are broken")
            found += outputs_of(task, prediction, image, metres=metres, alpha=self.config.alpha)
        return found

    def _write(self, name: str, output: Output) -> Told:
        file = f"{name}-{output.name}.png"
        picture = Image.fromarray(np.ascontiguousarray(output.pixels))
        if output.palette is not None:
            picture.putpalette(output.palette.tobytes())
        with atomic_path(self.out / file) as temporary:
            picture.save(temporary, format="PNG")
        return {"file": file, **output.about}

    @contextmanager
    def _numbered(self, name: str, told: list[Told]) -> Iterator[Callable[[Frame, list[Output]], None]]:
        """Write all outputs of a frame as pictures with its number, in a folder of the video's name."""

        def write(frame: Frame, outputs: list[Output]) -> None:
            with writing_to(self.out / name, inside=self.out):
                (self.out / name).mkdir(exist_ok=True)
            told.extend(self._write(f"{name}/{frame.number:06d}", output) for output in outputs)

        yield write

    @contextmanager
    def _videos(self, name: str, told: list[Told]) -> Iterator[Callable[[Frame, list[Output]], None]]:
        """Write a video of each output that is to be looked at."""
        with ExitStack() as stack:
            streams: dict[str, Callable[[np.ndarray], None]] = {}

            def write(frame: Frame, outputs: list[Output]) -> None:
                for output in (output for output in outputs if output.look):
                    file = f"{name}-{output.name}.mp4"
                    if file not in streams:
                        size, rate = output.pixels.shape[:2], frame.rate / self.config.every
                        streams[file] = stack.enter_context(_video_file(self.out / file, size, rate))
                        told.append({"file": file, **output.about})
                    streams[file](output.pixels)

            yield write


@contextmanager
def _video_file(path: Path, size: tuple[int, int], rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield what adds a picture, uint8 (H, W, 3) or (H, W), to an MP4 file, which is there once the block ends well.

    Raises:
        UserError: it cannot be written.
    """
    import cv2

    # OpenCV chooses the container by the ending.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.mp4")
    writer = cv2.VideoWriter(os.fspath(temporary), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), rate, size[::-1])
    count = 0

    def add(pixels: np.ndarray) -> None:
        nonlocal count
        shown = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.ndim == 3 else cv2.COLOR_GRAY2BGR)
        writer.write(shown if shown.shape[:2] == size else cv2.resize(shown, size[::-1]))
        count += 1

    try:
        if not writer.isOpened():
            raise UserError(f"cannot write {path}: OpenCV cannot begin a video of {size[1]} x {size[0]} there")
        yield add
        writer.release()
        written = cv2.VideoCapture(os.fspath(temporary), cv2.CAP_FFMPEG)
        frames = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
        written.release()
        if frames != count:  # the writer itself never says that a disk is full
            raise UserError(f"cannot write {path}: only {frames} of {count} frames are in it; is the disk full?")
        with writing_to(path, inside=path.parent):
            os.replace(temporary, path)
    finally:
        writer.release()
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _default_out(run: Path | None) -> Path:
    inside = run is not None and (run / "config.yaml").is_file()
    return run / "predictions" if run is not None and inside else Path("predictions")


def _about(net: PretrainedPredictor) -> Told:
    told: Told = {"tasks": list(net.tasks), "input_size": list(net.input_size)}
    if net.class_names:
        colours = ["#" + bytes(colour).hex() for colour in class_colours(len(net.class_names))]
        told["classes"] = [
            {"id": number, "name": name, "colour": colour}
            for number, (name, colour) in enumerate(zip(net.class_names, colours, strict=True))
        ]
    return told


def _colours_of(outputs: list[Output]) -> tuple[float, float] | None:
    """Return the metres of the first and the last colour of a picture's depths, None where it has no depths."""
    return next(((o.about["red"], o.about["blue"]) for o in outputs if o.name == "depth"), None)
