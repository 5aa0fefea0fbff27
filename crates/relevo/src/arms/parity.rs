//! The arm `parity`: a team coordinated as AgensFlow publishes it, with the same cells and the same facts of tasks.

use std::collections::BTreeMap;

use crate::{
    coordinate::{belief::EmptySearch, features::Regime},
    team::{
        CoordinatorSection, CreditSection, EstimatorSection, Failures, LearnerSection, PolicySection,
        StepSection,
    },
};

/// Steps of a task in its experiments.
const STEPS_MAX: u32 = 18;

/// Its constants: c = max(.5, 1.4 * .5^(N / 50)), weight .5 of the failure rate, 5 visits before scores count.
const UCB: PolicySection = PolicySection::Ucb {
    exploration: 1.4,
    exploration_min: 0.5,
    half_life: 50.0,
    reliability: 0.5,
    warm_up: 5,
    floor: 0.0,
};

/// Every choice may be skipped, nobody acts alone, nothing is required; beliefs in bins of .1, which searches that found
/// nothing raise too; of failed calls just their number is learned.
pub(super) fn coordinator(section: &CoordinatorSection) -> CoordinatorSection {
    CoordinatorSection {
        granularity: 0.1,
        taken: false,
        cell: false,
        skips: true,
        alone: false,
        empty_search: EmptySearch::Counted,
        failures: Failures::Counted,
        steps_max: STEPS_MAX,
        required: BTreeMap::from(Regime::ALL.map(|regime| (regime, vec![]))),
        ..section.clone()
    }
}

/// Upper confidence bounds on the mean whole returns of each situation by itself. An untried choice has an infinite score;
/// without exploration it is passed over.
pub(super) fn learner(section: &LearnerSection) -> LearnerSection {
    LearnerSection {
        decides: section.decides,
        values: section.values,
        initial: section.values[0],
        signatures_max: section.signatures_max,
        discount: 1.0,
        step: StepSection::Mean,
        policy: UCB,
        credit: CreditSection::Trajectory,
        estimator: EstimatorSection::Table,
        ..LearnerSection::default()
    }
}
