//! The simulated desk of `desk@1` for a team file.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use async_trait::async_trait;
use relevo::{
    agent::{Agent, Failure, OperationCall, Outcome},
    artifact::{Artifact, Scalar},
    coordinate::{
        document::{Document, Evidence, SCHEMA, Support, Verification},
        features::TaskFeatures,
    },
    tasks::{Simulator, Task, TaskError, TaskSource, facts},
    team::nearest,
};
use relevo_core::Rng;
use serde::{Deserialize, Serialize};

use super::{CELLS, Cell, Class, NAME, PROFILES, Truth, Work};
use crate::known_options;

/// The desk for a team file: tasks of all classes, cells by role.
pub struct DeskWorld(());

/// How far features lie from the means of their class at most.
const SCATTER: f64 = 0.16;

impl DeskWorld {
    /// The quality expected of an answer, without the luck that its judge adds; 0 where there is none.
    pub fn expected_quality(answer: &Artifact) -> f64 {
        Hidden::of_answer(answer).map_or(0.0, |(hidden, class)| hidden.truth.quality(class.profile()))
    }

    /// The world with the options of a team file; it has none.
    pub fn new(options: &BTreeMap<String, toml::Value>) -> Result<Self, TaskError> {
        known_options(options, &[])?;
        Ok(DeskWorld(()))
    }
}

/// The simulation's hidden state. Travels in the metadata of the document under [`NAME`], and is what a simulated answer
/// consists of, so that its judge can read it. No interface shows either.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hidden {
    class: String,
    /// Seeds what is random of this task.
    seed: u64,
    /// How much the task, and the answer that stands, are luckier than the mean; each in [-.5, .5].
    luck: [f64; 2],
    truth: Truth,
}

impl Hidden {
    fn task(class: Class, seed: u64) -> Task {
        let name = class.profile().name;
        let mut rng = Rng::stream(seed, "desk/task");
        let mut around = |mean: f64| (mean + SCATTER * (2.0 * rng.unit() - 1.0)).clamp(0.0, 1.0);
        let [ambiguity, contradiction, novelty, availability, verification] =
            class.profile().features.map(&mut around);
        let features = TaskFeatures {
            requires_factual_grounding: class.profile().needs > 0.0,
            ambiguity_level: ambiguity,
            contradiction_risk: contradiction,
            novelty_level: novelty,
            evidence_availability: availability,
            verification_need: verification,
            ..TaskFeatures::default()
        };
        let luck = [rng.unit() - 0.5, 0.0];
        let hidden = Hidden { class: name.to_owned(), seed, luck, truth: Truth::default() };
        let id = format!("{name} {seed:016x}");
        let mut document = Document {
            schema: Some(SCHEMA.to_owned()),
            features: Some(features),
            goal: Some(format!("answer question {id}")),
            ..Document::default()
        };
        hidden.hide(&mut document);
        let facts = facts([("class", Scalar::Text(name.to_owned()))]);
        Task { id, artifact: Artifact { facts, payload: document.write().into() }, expected: None }
    }

    fn hide(&self, document: &mut Document) {
        let value = serde_json::to_value(self).expect("names and finite numbers");
        document.metadata.insert(NAME.to_owned(), value);
    }

    fn read(document: &Document) -> Option<(Self, Class)> {
        let hidden = Hidden::deserialize(document.metadata.get(NAME)?).ok()?;
        let class = Class::named(&hidden.class)?;
        Some((hidden, class))
    }

    fn of_answer(answer: &Artifact) -> Option<(Self, Class)> {
        let hidden: Hidden = serde_json::from_slice(&answer.payload).ok()?;
        let class = Class::named(&hidden.class)?;
        Some((hidden, class))
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("names and finite numbers")
    }

    /// The quality of what stands: that expected of it, and as much luck as there is room for.
    fn quality(&self, class: Class) -> f64 {
        let q = self.truth.quality(class.profile());
        q + q.min(1.0 - q) * (self.luck[0] + self.luck[1])
    }
}

/// The seed of the evaluation tasks: fixed, so that every configuration meets the same ones.
const EVALUATION_SEED: u64 = 0x6465_736b;

impl TaskSource for DeskWorld {
    fn training(&self, rng: &mut Rng) -> Result<Task, TaskError> {
        let class = Class(rng.below(PROFILES.len() as u32) as usize);
        Ok(Hidden::task(class, rng.bits()))
    }

    fn evaluation(&self, index: u64) -> Result<Option<Task>, TaskError> {
        // Classes in turn: each has its share of the evaluation.
        let class = Class(index as usize % PROFILES.len());
        let seed = Rng::stream(EVALUATION_SEED, "desk/evaluation").fork([index, 0, 0]).bits();
        Ok(Some(Hidden::task(class, seed)))
    }

    fn open(&self, input: &Path) -> Result<Task, TaskError> {
        let fail = |what: String| TaskError(format!("{}: {what}", input.display()));
        let text =
            std::fs::read_to_string(input).map_err(|e| fail(format!("the input cannot be read: {e}")))?;
        let form = "a simulated task is a line such as {\"class\": \"procedural\", \"task\": 17}";
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| fail(format!("{e}; {form}")))?;
        let (Some(name), Some(number)) = (value["class"].as_str(), value["task"].as_u64()) else {
            return Err(fail(form.to_owned()));
        };
        let class = Class::named(name).ok_or_else(|| {
            let names = PROFILES.map(|p| p.name);
            let hint = match nearest(name, names.into_iter()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known are {}", names.join(", ")),
            };
            fail(format!("the class {name:?} is unknown; {hint}"))
        })?;
        Ok(Task { id: format!("{name} task {number}"), ..Hidden::task(class, number) })
    }

    fn quality(&self, _: &Task, artifact: &Artifact) -> Option<f64> {
        if artifact.payload.is_empty() {
            // Nobody wrote an answer.
            return Some(0.0);
        }
        Hidden::of_answer(artifact).map(|(hidden, class)| hidden.quality(class))
    }

    fn identity(&self) -> Vec<u8> {
        NAME.as_bytes().to_vec()
    }
}

/// The names of the cells, which are their roles.
const ROLES: [&str; CELLS.len()] = {
    let mut roles = [""; CELLS.len()];
    let mut i = 0;
    while i < CELLS.len() {
        roles[i] = CELLS[i].name;
        i += 1;
    }
    roles
};

impl Simulator for DeskWorld {
    fn agent(&self, role: &str) -> Option<Arc<dyn Agent>> {
        let cell = CELLS.iter().find(|cell| cell.name == role)?;
        Some(Arc::new(DeskCell { cell }))
    }

    fn roles(&self) -> &'static [&'static str] {
        &ROLES
    }
}

/// One simulated cell.
struct DeskCell {
    cell: &'static Cell,
}

#[async_trait]
impl Agent for DeskCell {
    async fn perform(&self, call: &OperationCall<'_>, artifact: Artifact) -> Outcome {
        let read = Document::parse(&artifact.payload).ok();
        let read = read.and_then(|document| Hidden::read(&document).map(|(h, class)| (document, h, class)));
        let Some((mut document, mut hidden, class)) = read else {
            let reason = format!("the artifact is not one of {NAME}");
            return Outcome::failed(artifact, Failure::Refused(reason));
        };
        let Cell { name, work, tokens, fails } = *self.cell;
        // A call is named by its handoff: the same call has the same outcome.
        let mut rng = Rng::stream(hidden.seed, &call.handoff.0);
        if rng.unit() < fails {
            let outcome = Outcome::failed(artifact, Failure::Refused("the search gave up".to_owned()));
            return Outcome { tokens, ..outcome };
        }
        hidden.act(work, class, name, &mut document, &mut rng);
        hidden.hide(&mut document);
        Outcome { tokens, ..Outcome::done(Artifact { payload: document.write().into(), ..artifact }) }
    }
}

impl Hidden {
    /// Do the work of a cell, and write what everybody sees of it.
    fn act(&mut self, work: Work, class: Class, name: &str, document: &mut Document, rng: &mut Rng) {
        let profile = class.profile();
        self.truth = self.truth.after(work, profile);
        let text = |what: &str| Some(format!("{what} by {name}"));
        match work {
            Work::Plan => document.subproblem = text("a plan"),
            Work::Search(source) => {
                // The more a source covers, the more items it gives.
                let items = (4.0 * profile.covers[source]).ceil() as u32;
                let item = |i| Evidence { source: name.to_owned(), text: format!("item {i}") };
                document.evidence.extend((0..items).map(item));
            }
            Work::Solve(..) | Work::Merge => {
                self.luck[1] = rng.unit() - 0.5;
                document.verification = None;
                document.merged_answer = None;
                let merges = work == Work::Merge;
                let answer = if merges { &mut document.merged_answer } else { &mut document.draft_answer };
                *answer = Some(self.text());
            }
            Work::Criticise => document.critique = text("a critique"),
            Work::Verify(_) => {
                // Supported as often as it is good; what is not is partly so half the time.
                let (q, u) = (self.truth.answer, rng.unit());
                let status = match u {
                    u if u < q => Support::Supported,
                    u if u < (1.0 + q) / 2.0 => Support::PartiallySupported,
                    _ => Support::Unsupported,
                };
                document.verification = Some(Verification { status, notes: String::new() });
                // What was checked is marked in the answer.
                let merged = document.merged_answer.as_mut();
                if let Some(answer) = merged.or(document.draft_answer.as_mut()) {
                    *answer = self.text();
                }
            }
            Work::Conclude => document.done = Some(true),
        }
    }
}
