"""Bugs to plant: what stands in the code, what stands there instead, and the tests that are to notice.

`tests/test_planted.py` plants each in a copy of the house and expects those tests to fail (`make slow`): `BUGS` are in
what is computed, `GUARDS` in what keeps damage, strangers and the second of two out. `tests/faults.py` has those of
syncs and renames.
"""

from typing import NamedTuple


class Bug(NamedTuple):
    """`before` stands once in `file`; with `after` in its place one of `tests` is to fail."""

    file: str
    before: str
    after: str
    tests: str
    only: str = ""
    """Of the tests, as `pytest -k` takes it, where they are many and this is about one."""


E = "mtf_engine/"
BUGS = {
    "next_baseline_are_the_current_ones": Bug(
        E + "logs/transitions.py", "rows = self._rows.take(np.where(ends, here, here + 1))",
        "rows = self._rows.take(here)", "test_datasets test_transitions"),
    "target_actor_never_moves": Bug(
        E + "algos/integrated_rl.py", "            soft_update(self.target_actor, self.actor, self.config.tau)\n", "",
        "test_integrated_rl"),
    "target_critics_never_move": Bug(
        E + "algos/integrated_rl.py", "            soft_update(self.target_critics, self.critics, self.config.tau)\n",
        "", "test_integrated_rl"),
    "density_of_fixed_dimensions_counts": Bug(
        E + "exploration/policies.py", "np.prod(each, axis=1, where=free)",
        "np.prod(np.nan_to_num(each, nan=1.0), axis=1)", "test_exploration"),
    "validation_preferred_to_test": Bug(
        E + "logs/datasets.py", "for s in (TEST, VALIDATION) if", "for s in (VALIDATION, TEST) if", "test_datasets"),
    "wall_ignores_beyond": Bug(
        E + "exploration/walls.py", "np.minimum(offsets - lower, upper - offsets) <=",
        "np.abs(np.minimum(offsets - lower, upper - offsets)) <=", "test_walls"),
    "validation_users_change_with_the_seed": Bug(
        E + "environments/collect.py", "_drawn(users, 0, Channel.VALIDATION)",
        "_drawn(users, collection.seed, Channel.VALIDATION)", "test_collect"),
    "gamma_of_the_bootstrap_is_lost": Bug(
        E + "algos/integrated_rl.py", "batch.rewards + batch.discounts * penalised", "batch.rewards + penalised",
        "test_integrated_rl test_oracles"),
    "disagreement_is_rewarded": Bug(
        E + "algos/integrated_rl.py", "self.config.eta * self._penalty(relative) + self.config.lambda_std",
        "self.config.eta * self._penalty(relative) - self.config.lambda_std", "test_integrated_rl"),
    "penalty_inside_the_bounds": Bug(
        E + "learning/penalties.py", "(relative.abs() - 1).clamp(min=0)", "relative.abs().clamp(min=0)",
        "test_integrated_rl test_penalty_curves"),
    "critics_pay_no_penalty": Bug(
        E + "learning/penalties.py", "return q - delta * penalty(excess, of).sum(dim=-1)", "return q",
        "test_integrated_rl"),
    "actions_are_not_cut": Bug(
        E + "exploration/policies.py", "actions = np.clip(moved, -1, 1)", "actions = moved", "test_exploration"),
    "control_users_explore": Bug(
        E + "exploration/policies.py", 'still = control | (kind == "baseline")',
        'still = control & (kind == "baseline")',
        "test_exploration test_collect"),
    "uniform_density_of_half_the_width": Bug(
        E + "exploration/policies.py", "density = np.divide(1, width,", "density = np.divide(2, width,",
        "test_exploration"),
    "bias_is_forgotten": Bug(
        E + "fusion.py", "xp.log(predictions.clip(PREDICTION_FLOOR) + biases)",
        "xp.log(predictions.clip(PREDICTION_FLOOR))",
        "test_fusion"),
    "range_of_a_weight_is_doubled": Bug(
        E + "fusion.py", "half_range = np.array([(d.high - d.low) / 2", "half_range = np.array([(d.high - d.low)",
        "test_fusion"),
    "returns_without_discount": Bug(
        E + "reward.py", "returns[steps] += gamma * returns[steps + 1]", "returns[steps] += returns[steps + 1]",
        "test_reward test_datasets"),
    "ties_count_as_won": Bug(
        E + "evaluation/weighted_gauc.py", "    _share_ties(below, negative, tied)\n", "", "test_weighted_gauc"),
    "users_of_one_class_count_half": Bug(
        E + "evaluation/weighted_gauc.py", "aucs = np.full(len(starts), np.nan)", "aucs = np.full(len(starts), 0.5)",
        "test_weighted_gauc"),
    "interval_of_80_percent": Bug(
        E + "evaluation/bootstrap.py", "np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])",
        "np.quantile(draws, [1 - level, level])", "test_bootstrap"),
    "bootstrap_of_rows_not_users": Bug(
        E + "evaluation/bootstrap.py", "generator.poisson(1.0, (stop - start, len(users)))",
        "generator.poisson(1.0, (stop - start, 1))", "test_bootstrap"),
    "bootstrap_of_places_not_keys": Bug(
        E + "evaluation/bootstrap.py", "draws.child(of_user[users], fours[:, None])",
        "draws.child(of_user[np.arange(len(users))], fours[:, None])", "test_bootstrap"),
    "test_users_are_not_paired": Bug(
        E + "evaluation/abtest.py", "linear_part = (ours[0] - means[0] / base_means[0] * base[0])",
        "linear_part = (ours[0] - means[0] / base_means[0] * base[0][::-1])", "test_abtest"),
    "p_value_of_one_side": Bug(
        E + "evaluation/abtest.py", "p_value = float(2 * stdtr(", "p_value = float(stdtr(", "test_abtest"),
    "users_of_a_live_test_halved": Bug(
        E + "evaluation/abtest.py", "ours.var(axis=1, ddof=1).mean() + base.var(axis=1, ddof=1).mean()",
        "ours.var(axis=1, ddof=1).mean()", "test_abtest"),
    "unknown_ends_are_terminal": Bug(
        E + "logs/transitions.py", "known = (follows | block[\"terminal\"]) & acted", "known = acted", "test_datasets"),
    "sessions_run_into_each_other": Bug(
        E + "logs/transitions.py",
        "follows = np.append(seen[\"session\"][1:] == seen[\"session\"][:-1], False)[: len(block)]",
        "follows = np.ones(len(block), bool)", "test_datasets test_transitions"),
    "last_days_are_for_training": Bug(
        E + "logs/splits.py", "from_the_end = len(days) - 1 - index", "from_the_end = index",
        "test_splits"),
    "one_user_in_two_validates": Bug(
        E + "logs/splits.py", "hash_array(user_id) % VALIDATION_USERS == 0", "hash_array(user_id) % 2 == 0",
        "test_splits"),
    "best_step_is_the_last": Bug(
        E + "learning/best_step.py", "if self.best_score is None or score > self.best_score:", "if True:",
        "test_best_step"),
    "a_resume_forgets_validation": Bug(
        E + "learning/training.py", "        validation.load_state_dict(saved[\"validation\"])\n",
        "        pass\n", "test_best_step test_training test_train_job"),
    "other_settings_resume": Bug(
        E + "learning/training.py",
        "if algo.Config.model_validate(saved[\"config\"] | {\"device\": algo.config.device}) != algo.config:",
        "if False:", "test_training"),
    "divergence_passes": Bug(
        E + "learning/training.py", "if not math.isfinite(value)]", "if value is None]", "test_training"),
    "the_rule_promotes_what_holds_nothing": Bug(
        E + "release/review.py", "if gain.ci_low <= 0 else []", "if gain.ci_low < -1 else []", "test_review"),
    "broken_guardrails_pass": Bug(
        E + "release/review.py", "if finding.holds is False]", "if finding.holds is None]", "test_review"),
    "live_policies_are_deleted": Bug(
        E + "workspace.py", "if held == run_of(self.live):", "if False:", "test_parents test_registry test_review"),
    "queued_readers_hold_nothing": Bug(
        E + "workspace.py", "if not run.state.is_finished and (held in named",
        "if run.state is RunState.RUNNING and (held in named",
        "test_registry"),
    "older_code_is_reused": Bug(
        E + "runs/campaign.py", 'return reuse == "any" or provenance.is_of_this_code(run)', "return True",
        "test_compare"),
    "a_parquet_file_without_its_hash": Bug(
        E + "logs/datasets.py", "self._of[name].update(_bytes(column))", "self._of[name].update(b'')", "test_sharding"),
    "a_log_without_its_hash": Bug(
        E + "logs/datasets.py", "found.update(_bytes(column))", "found.update(b'')",
        "test_datasets"),
}  # fmt: skip
"""By what goes wrong."""
GUARDS = {
    "a_policy_is_taken_as_it_is": Bug(
        E + "policies/heads.py", "        sealed.read(path, REMEDY)\n", "", "test_sealed"),
    "a_checkpoint_is_taken_as_it_is": Bug(
        E + "learning/training.py", "content = sealed.read(path, ANEW)", "content = path.read_bytes()", "test_sealed"),
    "a_line_of_metrics_is_taken_as_it_is": Bug(
        E + "runs/metrics.py", "if row is None and any_sealed:", "if False:", "test_sealed"),
    "a_file_never_differs_from_its_hash": Bug(
        E + "sealed.py", "if own is None or hashlib.sha256(content).hexdigest() in own:", "if True:", "test_sealed"),
    "files_appear_before_they_are_on_the_disk": Bug(
        E + "disk.py", '    for one in (temp, *temp.rglob("*")):\n        settle(one)\n', "", "test_faults"),
    "two_entries_follow_one": Bug(
        E + "registry_versions/versions/v0001_first.py", "DECISIONS.c.follows, unique=True", "DECISIONS.c.follows",
        "test_review"),
    "a_plan_is_replaced_unseen": Bug(
        E + "registry.py", "if seen not in (ANY, there):", "if False:", "test_registry"),
    "a_change_of_the_live_policy_is_not_told": Bug(
        E + "release/review.py", 'seen is not None and (one["decision"] or 0) > seen]', "False]", "test_review"),
    "a_round_is_decided_twice": Bug(
        E + "registry_versions/versions/v0001_first.py", "DECISIONS.c.round, unique=True", "DECISIONS.c.round",
        "test_review"),
    "a_memo_obeys_what_users_typed": Bug(
        E + "release/memo.py", 'f"<td>{escape(cell)}</td>"', 'f"<td>{cell}</td>"', "test_review"),
    "charts_obey_what_users_typed": Bug(
        "pages/shared/charts.py", 'return html.escape(" ".join(str(text).split()), quote=False)',
        'return " ".join(str(text).split())', "test_charts"),
    "a_cell_of_a_download_is_a_formula": Bug(
        "pages/shared/exhibit.py", ".map(_no_formula)", "", "test_charts"),
    "everybody_may_do_everything": Bug(
        E + "workspace.py", "if self.visitor and not self.visitor.may(action):", "if False:", "test_permissions"),
    "what_takes_no_role_is_everybodys": Bug(
        E + "permissions.py", "return least is not None and self.role.covers(least)",
        "return least is None or self.role.covers(least)", "test_permissions"),
    "a_workspace_is_open_to_everybody": Bug(
        E + "workspace.py", "self.path.mkdir(mode=0o700, ", "self.path.mkdir(", "test_registry"),
    "a_new_workspaces_files_are_open": Bug(
        E + "disk.py", "rights = 0o700", "rights = 0o755", "test_cli", "owners_alone"),
    "a_sleepers_file_appears": Bug(
        E + "disk.py", "    check_guards()\n    temp.replace(path)\n", "    temp.replace(path)\n", "test_fencing"),
    "a_sleepers_file_is_added_to": Bug(
        E + "runs/fencing.py", " for name in GROW if (", " for name in () if (", "test_fencing"),
    "a_sleeper_writes_to_the_registry": Bug(
        E + "registry.py", "                    self._lost(run_id)\n", "                    pass\n",
        "test_registry"),
    "an_open_cluster_is_taken": Bug(
        E + "runs/ray_jobs.py", 'if self._is_open() and os.environ.get(INSECURE) != "1":', "if False:", "test_fencing"),
    "a_process_is_signalled_for_another_machine": Bug(
        E + "runs/executor.py", "run.host in (None, HOST)", "True", "test_fencing"),
    "a_foreign_host_is_answered": Bug(
        E + "dashboard.py", "        Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),\n", "",
        "test_browser", "foreign_host"),
    "a_member_of_a_bundle_is_as_large_as_it_likes": Bug(
        E + "policies/bundle_reading.py", "if info.file_size > most:", "if False:", "test_bundle"),
    "a_member_of_a_bundle_is_there_twice": Bug(
        E + "policies/bundle_reading.py", " or names.count(info.filename) > 1:", ":", "test_bundle"),
    "a_manifest_is_not_hashed": Bug(
        E + "policies/bundle_reading.py", "found |= {MANIFEST: manifest_hash(manifest)}",
        "found |= {MANIFEST: hashes.get(MANIFEST)}", "test_bundle"),
    "a_graph_takes_all_time": Bug(
        E + "policies/answering.py",
        "    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))\n", "", "test_bundle"),
    "a_graph_takes_all_memory": Bug(
        E + "policies/answering.py",
        "    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MB << 20, MEMORY_MB << 20))\n", "", "test_bundle"),
}  # fmt: skip
"""By what gets in or is lost, one guard out of place each."""
