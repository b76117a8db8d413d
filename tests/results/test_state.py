"""How far a run has come, and its curves over all of its processes: from files as mmengine's."""

from pathlib import Path

import pytest
from runs import write_process, write_run

from mmparc.analysis.logs import read_scalars, read_starts
from mmparc.results.collect import final_metrics, state_of


def steps_of(work_dir: Path) -> tuple[list[int], list[int]]:
    train, val = read_scalars(work_dir)
    return [r['iter'] for r in train], [r['step'] for r in val]


def test_a_resumed_run_is_one_curve(tmp_path: Path) -> None:
    write_process(tmp_path, '20260101_000001', range(1, 7), {1: {'m': 1}, 2: {'m': 2}}, 2)
    assert steps_of(tmp_path) == ([1, 2, 3, 4, 5, 6], [1, 2])
    # killed in its third epoch, it continues after the second
    write_process(tmp_path, '20260101_000002', range(5, 9), {3: {'m': 3}, 4: {'m': 4}}, 2)
    assert steps_of(tmp_path) == ([*range(1, 9)], [1, 2, 3, 4])
    # again from its first epoch: the results of the later epochs are gone
    write_process(tmp_path, '20260101_000003', range(3, 5), {2: {'m': 20}}, 2)
    assert steps_of(tmp_path) == ([1, 2, 3, 4], [1, 2])
    assert [r['m'] for r in read_scalars(tmp_path)[1]] == [1, 20]
    assert final_metrics(tmp_path, 2) == {'m': 20} and final_metrics(tmp_path, 4) == {}
    # restarted by iterations: nothing is left
    write_process(tmp_path, '20260101_000004', range(1, 3), {2: {'m': 7}})
    assert steps_of(tmp_path) == ([1, 2], [2]) and final_metrics(tmp_path, 2) == {'m': 7}


def test_a_line_that_was_cut_off_is_left_out_and_damage_is_an_error(tmp_path: Path) -> None:
    assert read_starts(tmp_path) == []
    path = write_process(tmp_path, '20260101_000001', range(1, 4), {})
    whole = path.read_text()
    for text in (whole + '{"lr": 1, "it', whole.rstrip()):
        path.write_text(text)
        assert steps_of(tmp_path) == ([1, 2, 3], [])
    path.write_text(whole.replace('{', '', 1))
    with pytest.raises(ValueError, match=r'scalars.json. .*line 1'):
        read_scalars(tmp_path)


def test_states(tmp_path: Path) -> None:
    assert state_of(tmp_path / 'nothing', '3 epochs').name == 'missing'
    (tmp_path / 'begun/20260101_000000').mkdir(parents=True)
    assert state_of(tmp_path / 'begun', '3 epochs').name == 'missing'

    work_dir = tmp_path / 'a'
    write_run(work_dir, '2 epochs', {'accuracy/top1': 50.0})
    assert state_of(work_dir, '3 epochs')[:2] == ('partial', {})
    assert state_of(work_dir, '2 epochs') == ('done', {'accuracy/top1': 50.0}, 'epoch_2.pth')
    # killed in the last validation: --resume validates first
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    log.write_text(''.join(log.read_text().splitlines(keepends=True)[:-1]))
    assert state_of(work_dir, '2 epochs')[:2] == ('partial', {})

    # another run's directory, or one without its checkpoint, is never trained in
    for schedule in ('1 epochs', '9 iterations'):
        with pytest.raises(ValueError, match=rf"'epoch_2.pth'.*{schedule}"):
            state_of(work_dir, schedule)
    (work_dir / 'epoch_2.pth').unlink()
    with pytest.raises(ValueError, match=r"'epoch_2.pth'.*remove '"):
        state_of(work_dir, '3 epochs')
