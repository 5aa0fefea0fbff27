//! The simulated team of `maths@1` for a team file.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use async_trait::async_trait;
use relevo::{
    agent::{Agent, Failure, OperationCall, Outcome},
    artifact::{Artifact, Facts, Scalar},
    tasks::{Simulator, Task, TaskError, TaskSource, facts},
    team::nearest,
};
use relevo_core::Rng;

use super::{Conversation, DATASETS, NAME, Problem, ROLES};
use crate::known_options;

/// The same team for a team file: agents with roles, problems of one or more datasets.
pub struct MathsWorld {
    datasets: Vec<usize>,
}

impl MathsWorld {
    /// The world with the options of a team file: `datasets`, a list of names; all three if left out.
    pub fn new(options: &BTreeMap<String, toml::Value>) -> Result<Self, TaskError> {
        known_options(options, &["datasets"])?;
        let names = DATASETS.map(|d| d.name);
        let wrong = || {
            TaskError(format!("[simulate.options]: datasets is a list of names out of {}", names.join(", ")))
        };
        let Some(listed) = options.get("datasets") else {
            return Ok(MathsWorld { datasets: vec![0, 1, 2] });
        };
        let mut datasets = vec![];
        for name in listed.as_array().filter(|a| !a.is_empty()).ok_or_else(wrong)? {
            let name = name.as_str().ok_or_else(wrong)?;
            datasets.push(index_of(name)?);
        }
        Ok(MathsWorld { datasets })
    }

    fn problem(&self, rng: &mut Rng) -> Task {
        let dataset = self.datasets[rng.below(self.datasets.len() as u32) as usize];
        let problem = Problem::draw(rng);
        Hidden { dataset, problem, conversation: Conversation::default() }.task()
    }
}

fn index_of(name: &str) -> Result<usize, TaskError> {
    let names = DATASETS.map(|d| d.name);
    names.iter().position(|n| *n == name).ok_or_else(|| {
        let hint = match nearest(name, names.into_iter()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known are {}", names.join(", ")),
        };
        TaskError(format!("the dataset {name:?} is unknown; {hint}"))
    })
}

/// The payload of a simulated artifact: what really is the case, which no interface shows.
struct Hidden {
    dataset: usize,
    problem: Problem,
    conversation: Conversation,
}

impl Hidden {
    fn task(self) -> Task {
        let data = DATASETS[self.dataset].name;
        let id = format!("{data} {:016x}", self.problem.u.to_bits());
        Task { id, artifact: self.artifact(), expected: None }
    }

    fn artifact(&self) -> Artifact {
        let c = &self.conversation;
        let bit = Scalar::Bool;
        let facts = facts([
            ("dataset", Scalar::Text(DATASETS[self.dataset].name.to_owned())),
            ("given", bit(c.given)),
            ("modified", bit(c.modified)),
            ("checked", bit(c.checked)),
            ("judged_right", bit(c.judged_right)),
        ]);
        let Problem { u, w, v } = self.problem;
        let flags = [c.answered, c.reasoned, c.via_thinker, c.revised, c.right];
        let mut payload = vec![self.dataset as u8];
        payload.extend(flags.map(u8::from));
        payload.extend([u, w[0], w[1], v[0], v[1]].into_iter().flat_map(f64::to_le_bytes));
        Artifact { facts, payload: payload.into() }
    }

    fn read(artifact: &Artifact) -> Option<Self> {
        let (head, numbers) = artifact.payload.split_first_chunk::<6>()?;
        let [dataset, answered, reasoned, via_thinker, revised, right] = *head;
        let numbers: Vec<f64> = numbers.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect();
        let &[u, w0, w1, v0, v1] = numbers.as_slice() else { return None };
        let bit = |name: &str| artifact.facts.get(name) == Some(&Scalar::Bool(true));
        let conversation = Conversation {
            given: bit("given"),
            modified: bit("modified"),
            checked: bit("checked"),
            judged_right: bit("judged_right"),
            answered: answered == 1,
            reasoned: reasoned == 1,
            via_thinker: via_thinker == 1,
            revised: revised == 1,
            right: right == 1,
        };
        let dataset = usize::from(dataset);
        let problem = Problem { u, w: [w0, w1], v: [v0, v1] };
        (dataset < DATASETS.len()).then_some(Hidden { dataset, problem, conversation })
    }
}

/// The seed of the evaluation problems: fixed, so that every workflow of every run meets the same ones.
const EVALUATION_SEED: u64 = 0x7265_6c65_766f;

impl TaskSource for MathsWorld {
    fn training(&self, rng: &mut Rng) -> Result<Task, TaskError> {
        Ok(self.problem(rng))
    }

    fn evaluation(&self, index: u64) -> Result<Option<Task>, TaskError> {
        // Datasets in turn: each has its share of the evaluation.
        let dataset = self.datasets[index as usize % self.datasets.len()];
        let mut rng = Rng::stream(EVALUATION_SEED, "maths/evaluation").fork([index, 0, 0]);
        let problem = Problem::draw(&mut rng);
        Ok(Some(Hidden { dataset, problem, conversation: Conversation::default() }.task()))
    }

    fn open(&self, input: &Path) -> Result<Task, TaskError> {
        let fail = |what: String| TaskError(format!("{}: {what}", input.display()));
        let text =
            std::fs::read_to_string(input).map_err(|e| fail(format!("the input cannot be read: {e}")))?;
        let form = "a simulated problem is a line such as {\"dataset\": \"mathqa\", \"problem\": 17}";
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| fail(format!("{e}; {form}")))?;
        let (Some(name), Some(number)) = (value["dataset"].as_str(), value["problem"].as_u64()) else {
            return Err(fail(form.to_owned()));
        };
        let dataset = index_of(name).map_err(|e| fail(e.0))?;
        let problem = Problem::draw(&mut Rng::stream(number, "maths/problem"));
        let task = Hidden { dataset, problem, conversation: Conversation::default() }.task();
        Ok(Task { id: format!("{name} problem {number}"), ..task })
    }

    fn quality(&self, _: &Task, artifact: &Artifact) -> Option<f64> {
        Hidden::read(artifact).map(|hidden| f64::from(u8::from(hidden.conversation.right)))
    }

    fn identity(&self) -> Vec<u8> {
        NAME.as_bytes().iter().copied().chain(self.datasets.iter().map(|d| *d as u8)).collect()
    }
}

impl Simulator for MathsWorld {
    fn agent(&self, role: &str) -> Option<Arc<dyn Agent>> {
        let role = ROLES.iter().position(|r| *r == role)?;
        Some(Arc::new(MathsAgent { role }))
    }

    fn roles(&self) -> &'static [&'static str] {
        &ROLES
    }
}

/// One simulated agent.
struct MathsAgent {
    role: usize,
}

#[async_trait]
impl Agent for MathsAgent {
    async fn perform(&self, _: &OperationCall<'_>, artifact: Artifact) -> Outcome {
        let Some(mut hidden) = Hidden::read(&artifact) else {
            let reason = "the artifact is not one of maths@1".to_owned();
            return Outcome::failed(artifact, Failure::Refused(reason));
        };
        // Whether a rationale came along is for this agent alone to know.
        let rationale = Scalar::Bool(hidden.conversation.reasoned);
        hidden.conversation.operate(self.role, &DATASETS[hidden.dataset], &hidden.problem);
        let mut outcome = Outcome::done(hidden.artifact());
        outcome.private = Facts::from([("rationale".to_owned(), rationale)]);
        outcome
    }
}
