"""The command ``predict``: the top-5 of one image."""

from __future__ import annotations

import argparse

from ptqbench.cli.command import Command
from ptqbench.cli.setting_options import load_settings, one_request
from ptqbench.core.paths import is_dir, is_file, user_path
from ptqbench.errors import UserError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="a photograph")
    parser.add_argument("--model", required=True, metavar="NAME")


def _predict(args: argparse.Namespace) -> int:
    image = user_path(args.image)
    if not is_file(image):
        reason = "is a folder" if is_dir(image) else "does not exist"
        raise UserError(f"Cannot read the image {image}: it {reason}. Name an image file.")
    request = one_request(load_settings(args, [args.model]), args.model)
    from ptqbench.evaluation.predict import predict
    from ptqbench.reporting import console
    from ptqbench.reporting.prediction_table import prediction_view
    from ptqbench.reporting.progress_display import progress_display

    with progress_display(lines=False) as progress:
        prediction = predict(image, request, progress)
    console.show(prediction_view(prediction, image.name))
    return 0


COMMAND = Command(
    "predict",
    " IMAGE --model NAME",
    "top-5 of one image, float32 next to int8",
    _add_arguments,
    _predict,
)
