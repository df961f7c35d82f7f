"""What recipes may promise after the coverage sweep."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_results import VGG, Script, case, result

from ptqbench.settings.thresholds import Thresholds

ROOT = Path(__file__).parents[2]


def test_the_fastest_backend_that_passes_is_recommended_with_a_margin(script: Script) -> None:
    found = script("thresholds").measured_of(
        VGG,
        {
            "avx2": result(
                x86=case(),
                fbgemm=case(backend="fbgemm", speedup=(9.0, 8.0, 10.0), agreed=100),
                onednn=case(backend="onednn", speedup=(3.0, 2.5, 3.5)),
                qnnpack=case(backend="qnnpack", speedup=(9.0, 8.0, 10.0), size=[3000, 1000]),
            )
        },
    )
    assert found.backend == "onednn"
    assert found.speedup == {"avx2": 2.12}  # 0.85 × 2.5, rounded down
    assert found.size_ratio == 2.91  # 0.97 × 3
    assert (found.fused_groups, found.int8_modules) == (20, 21)
    assert found.unsupported == {}


def test_noise_is_taken_off_a_promised_speedup(script: Script) -> None:
    noisy = case()
    noisy["speed"]["noise"] = [1.0, 0.8, 1.1]
    found = script("thresholds").measured_of(VGG, {"avx2": result(x86=noisy)})
    assert found.speedup == {"avx2": 1.29}  # 0.85 × 1.9 × 0.8
    gates = script("records").judge_again(noisy, Thresholds(speedup=found.speedup), [1, 3, 8, 8])
    assert {gate.name: gate.verdict.value for gate in gates}["speedup"] == "pass"


def test_a_speedup_below_one_stays_what_it_is(script: Script) -> None:
    slow = {"avx2": result(x86=case(speedup=(0.9, 0.8, 1.0)))}
    assert script("thresholds").measured_of(VGG, slow).speedup == {"avx2": 0.68}


def test_each_instruction_set_has_its_own_speedup_and_eager_mode_counts(script: Script) -> None:
    results = {
        "avx2": result(x86=case(), eager=case(speedup=(1.5, 1.4, 1.6))),
        "native": result(x86=case(instruction_set="amx", kernels_for=["amx"])),
    }
    assert script("thresholds").measured_of(VGG, results).speedup == {"avx2": 1.19, "amx": 1.61}


def test_a_later_run_recommends_where_the_first_has_no_time(script: Script) -> None:
    untimed = case()
    del untimed["speed"]
    later = result(x86=case(), onednn=case(backend="onednn", speedup=(3.0, 2.5, 3.5)))
    found = script("thresholds").measured_of(VGG, {"native": result(x86=untimed), "avx2": later})
    assert (found.backend, found.speedup) == ("onednn", {"avx2": 2.12})


def test_where_nothing_timed_passes_the_next_best_is_recommended(script: Script) -> None:
    module = script("thresholds")
    unsure = {"agreed": 380, "speedup": (3.0, 2.5, 3.5)}  # 95 % of 400, more or less
    untimed = case(backend="onednn", kept=(400, 0, 0, 0))
    del untimed["speed"]
    results = [result(x86=case(**unsure), onednn=untimed, qnnpack=case(backend="qnnpack"))]
    assert module.recommended(results, Thresholds()) == "onednn"
    results = [result(x86=case(**unsure), fbgemm=case(agreed=300))]
    assert module.recommended(results, Thresholds()) == "x86"
    assert module.recommended([result(fbgemm=case(agreed=300))], Thresholds()) is None


def test_probe_thresholds_follow_the_results_with_the_most_images(script: Script) -> None:
    module = script("thresholds")
    few = {**result(x86=case(agreed=330)), "evaluation_images": 32}
    found = module.measured_of(VGG, {"native": few, "avx2": result(x86=case(agreed=368))})
    assert found.probe == module.probe_thresholds([case(agreed=368)])


def test_probe_thresholds_are_set_where_the_general_ones_are_missed(script: Script) -> None:
    module = script("thresholds")
    assert module.probe_thresholds([case(kept=(400, 0, 0, 0), agreed=400)]) == {}
    found = module.probe_thresholds([case(), case(agreed=368, sqnr_db=17.26)])
    # Wilson's lower limit for 368 of 400 is 0.889; equal SQNRs leave an interval without length.
    assert found["agreement"] == 0.87
    assert found["sqnr_db"] == 16.2
    assert 0.95 < found["accuracy"] < 0.99
    again = Thresholds().replaced(found)
    gates = script("records").judge_again(case(agreed=368, sqnr_db=17.26), again, [1, 3, 8, 8])
    verdicts = {gate.name: gate.verdict.value for gate in gates}
    assert verdicts.pop("speedup") == "unverified"  # no threshold is asked for here
    assert set(verdicts.values()) == {"pass"}


@pytest.mark.parametrize(
    "bad",
    [
        {"sqnr_db": 5.0},
        {"agreed": 200},
        {"kept": (200, 100, 0, 100)},
        {"sqnr_db": -3.0, "agreed": 40, "kept": (20, 280, 5, 95)},
    ],
)
def test_a_collapse_never_becomes_green(script: Script, bad: dict[str, Any]) -> None:
    module = script("thresholds")
    results = {"avx2": result(x86=case(**bad), onednn=case(**bad, backend="onednn"))}
    found = module.measured_of(VGG, results)
    assert found.backend is None and found.speedup == {} and found.probe == {}
    beside = module.measured_of(VGG, {"avx2": result(x86=case(**bad), fbgemm=case())})
    assert beside.probe == module.probe_thresholds([case()])
    assert module.collapsed(script("records").accuracy_of(case(**bad)))


def test_a_case_that_fails_a_gate_without_threshold_is_not_learnt_from(script: Script) -> None:
    module = script("thresholds")
    wrong = case(agreed=330)
    wrong["gates"] = {**wrong["gates"], "saturation": "fail"}
    assert not module.sound(wrong)
    assert module.measured_of(VGG, {"avx2": result(x86=wrong)}).backend is None


def test_the_record_gives_the_thresholds_that_it_was_judged_by(script: Script) -> None:
    module = script("thresholds")
    slow = case(backend="fbgemm", agreed=330, speedup=(1.1, 1.0, 1.2))
    results = {"avx2": {"vgg11": result(x86=case(agreed=368), fbgemm=slow)}}
    found = module.measured_of(VGG, {"avx2": results["avx2"]["vgg11"]})
    recipe = replace(VGG, thresholds=Thresholds(speedup=found.speedup), probe=found.probe)
    record = script("results").record({"vgg11": recipe}, results, {"vgg11": ["x86", "fbgemm"]})
    by_name = {entry["case"]: entry for entry in record["runs"]["avx2"]["cases"]}
    assert by_name["fbgemm"]["gates"]["speedup"] == "fail"
    again = script("results").results_of(record)["avx2"]["vgg11"]
    assert script("results").of_today(recipe, again) == again
    assert module.measured_of(VGG, {"avx2": again}) == found


def test_logits_that_are_not_numbers_are_a_collapse(script: Script) -> None:
    broken = case()
    broken["accuracy"]["noise"] = [400, 4e4, None, 0.0, 0.0, 0.0]
    accuracy = script("records").accuracy_of(broken)
    assert accuracy.sqnr_db == -math.inf
    assert script("thresholds").collapsed(accuracy)


def test_what_torch_refuses_is_why_a_backend_is_not_supported(script: Script) -> None:
    said = {"status": "refused", "reason": "scale ratio must be small"}
    lost = {"status": "died", "reason": "the process was killed"}
    found = script("thresholds").measured_of(
        VGG, {"avx2": result(x86=case(), qnnpack=said, onednn=lost)}
    )
    assert found.unsupported == {"qnnpack": "scale ratio must be small"}
