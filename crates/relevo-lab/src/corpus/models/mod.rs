//! Scripted models for a generated corpus. **Not language models**: a simulator that answers requests as the cells of a
//! coordinated team make them, by the tables below. What it answers is a function of its seed, the model's name and the
//! request. It is told nothing of learners, arms, rewards and answer keys.
//!
//! Whether a solver can be right is not drawn: the facts are read out of the evidence in the document, and an answer that
//! needs one which is not there cannot be derived. What can be derived is got right with a probability, by class, skill and
//! size; who errs gives a plausible wrong answer. Who has no evidence invents rather than admits it. Critics, verifiers
//! and evaluators compare the draft with what can be derived, and overlook some of what is wrong.

mod faults;
mod prompt;

use std::time::Duration;

use relevo::coordinate::{
    document::{Document, Support},
    plan::Role,
};
use relevo_core::Rng;
use serde_json::json;

use super::{Class, Document as Page, Kind, NOT_STATED, Question, reading::Facts, vocabulary::Vocabulary};
use crate::model_server::{Asked, Reply};

pub use faults::Faults;
use prompt::{Misread, Prompt};
pub use prompt::{NAMES, Size, Skill};

/// What a skill makes of a class: the probability that a large model gets right what follows from the evidence, with the
/// skills concise, step by step, by the evidence, and none. Of out-of-corpus, that it says so.
pub const SKILLS: [(Class, [f64; 4]); 8] = [
    (Class::Procedural, [0.95, 0.90, 0.93, 0.90]),
    (Class::SingleDocument, [0.95, 0.92, 0.97, 0.92]),
    (Class::CrossDocument, [0.75, 0.85, 0.92, 0.80]),
    (Class::Synthesis, [0.50, 0.92, 0.65, 0.60]),
    (Class::OutOfCorpus, [0.60, 0.60, 0.93, 0.65]),
    (Class::Derivative, [0.55, 0.95, 0.70, 0.65]),
    (Class::Mitigation, [0.65, 0.78, 0.88, 0.70]),
    (Class::Pair, [0.92, 0.85, 0.92, 0.88]),
];

/// What is left of it on the small and the fast model.
pub const SIZES: [(Class, [f64; 2]); 8] = [
    (Class::Procedural, [0.93, 0.98]),
    (Class::SingleDocument, [0.94, 0.98]),
    (Class::CrossDocument, [0.72, 0.90]),
    (Class::Synthesis, [0.60, 0.82]),
    (Class::OutOfCorpus, [0.75, 0.90]),
    (Class::Derivative, [0.65, 0.86]),
    (Class::Mitigation, [0.70, 0.88]),
    (Class::Pair, [0.82, 0.93]),
];

/// The share of what is missing that a plan closes which says what has to be found.
pub const PLAN: [(Class, f64); 8] = [
    (Class::Procedural, 0.0),
    (Class::SingleDocument, 0.0),
    (Class::CrossDocument, 0.2),
    (Class::Synthesis, 0.2),
    (Class::OutOfCorpus, 0.0),
    (Class::Derivative, 0.2),
    (Class::Mitigation, 0.2),
    (Class::Pair, 0.1),
];

/// How often a plan of each size says so.
pub const PLANS: [f64; 3] = [0.7, 0.85, 0.95];
/// The share of what is missing that is closed where a critic or a verifier has said that the draft is wrong.
pub const TOLD: f64 = 0.3;
/// How often a solver keeps a draft that nobody has found fault with.
pub const KEEPS: f64 = 0.5;
/// How often a solver without any evidence admits it instead of inventing an answer.
pub const ADMITS: f64 = 0.15;
/// How often what is invented is right all the same, by size.
pub const KNOWS: [f64; 3] = [0.01, 0.02, 0.05];
/// How often a critic and a verifier find a fault that is there, by size.
pub const FINDS: [f64; 3] = [0.6, 0.75, 0.88];
/// The same of an evaluator, who looks less closely.
pub const DOUBTS: [f64; 3] = [0.4, 0.5, 0.6];
/// How often each finds one that is not there.
pub const FALSE_ALARM: [f64; 3] = [0.10, 0.06, 0.03];

/// What is thought besides what is said, in tokens of the fast model: planning, criticising, verifying, merging, evaluating;
/// and solving, by skill.
pub const THOUGHT: [u64; 5] = [150, 200, 250, 200, 100];
/// See [`THOUGHT`].
pub const SOLVING: [u64; 4] = [80, 600, 250, 200];
/// How much more or less the models think than the fast one.
pub const THINKS: [f64; 3] = [0.6, 1.0, 1.6];

/// Said of a draft by critics that find fault with it; solvers go by it.
const WRONG: &str = "does not follow from the evidence";

/// The scripted models of a corpus.
pub struct Scripted {
    seed: u64,
    words: &'static Vocabulary,
    /// What all documents state: what somebody errs with, and knows by heart.
    known: Facts,
    faults: Faults,
    latency: Duration,
}

fn of_class<T: Copy>(table: &[(Class, T); 8], class: Class) -> T {
    table.iter().find(|(of, _)| *of == class).expect("all are listed").1
}

/// What is left of a gap when a share of it is closed.
fn close(p: f64, share: f64) -> f64 {
    p + share * (1.0 - p)
}

impl Scripted {
    /// The models of a corpus that consists of these documents.
    pub fn new(pages: &[Page], seed: u64) -> Self {
        let texts = || pages.iter().map(|page| page.text.as_str());
        // Of the two kinds of words, those in which the documents state more.
        let read = Kind::ALL.map(|kind| (Vocabulary::of(kind), Facts::read(Vocabulary::of(kind), texts())));
        let (words, known) = read.into_iter().max_by_key(|(_, facts)| facts.len()).expect("there are two");
        Scripted { seed, words, known, faults: Faults::default(), latency: Duration::ZERO }
    }

    /// With faults.
    pub fn faulty(self, faults: Faults) -> Self {
        Scripted { faults, ..self }
    }

    /// With answers that take this long, a half more or less.
    pub fn after(self, latency: Duration) -> Self {
        Scripted { latency, ..self }
    }

    /// What is done with a request.
    pub fn reply(&self, asked: &Asked) -> Reply {
        let mut rng = self.draws(asked);
        let answer = self.answer(asked, &mut rng);
        let reply = self.faults.spoil(self.seed, asked.number, answer);
        match self.latency.is_zero() {
            true => reply,
            false => Reply::After(self.latency.mul_f64(0.5 + rng.unit()), Box::new(reply)),
        }
    }

    /// Randomness that belongs to a request.
    fn draws(&self, asked: &Asked) -> Rng {
        let texts = asked.messages.iter().flat_map(|(speaker, text)| [speaker.as_str(), text.as_str()]);
        let request: Vec<&str> = std::iter::once(asked.model.as_str()).chain(texts).collect();
        Rng::stream(self.seed, &request.join("\n"))
    }

    fn answer(&self, asked: &Asked, rng: &mut Rng) -> Reply {
        let Prompt { size, part } = match Prompt::read(asked) {
            Ok(prompt) => prompt,
            Err(Misread::Model) => return Reply::refuse(404, "model_not_found"),
            Err(Misread::Messages) => return Reply::refuse(400, "not_a_cell"),
        };
        let Some((role, skill, document)) = part else { return Reply::Say("ready".to_owned()) };
        let said = Said { models: self, size, skill, question: question(&document), document: &document };
        let (answer, thought) = said.by(role, rng);
        // thought = tokens of the role, as much more as the model thinks more
        let thought = (thought as f64 * THINKS[size as usize]) as u64;
        Reply::Think { thought, text: answer.to_string() }
    }
}

/// The question of a document: its goal is the whole of it.
fn question(document: &Document) -> Option<Question> {
    Question::parse(document.goal.as_deref()?)
}

/// One request, as somebody answers it.
struct Said<'r> {
    models: &'r Scripted,
    size: Size,
    skill: Skill,
    question: Option<Question>,
    document: &'r Document,
}

impl Said<'_> {
    /// The answer in the form of a role, and the thought that went into it.
    fn by(&self, role: Role, rng: &mut Rng) -> (serde_json::Value, u64) {
        let of = |table: [f64; 3]| table[self.size as usize];
        match role {
            Role::Planner => {
                let goal = self.document.goal.as_deref().unwrap_or("Find out what is asked.");
                let plan = match (&self.question, rng.unit() < of(PLANS)) {
                    (Some(question), true) => {
                        let subproblem =
                            format!("Find all that is said of {}.", question.about.join(" and of "));
                        json!({"subproblem": subproblem, "constraints": [PLANNED], "open_questions": []})
                    }
                    _ => json!({"subproblem": goal, "constraints": [], "open_questions": []}),
                };
                (plan, THOUGHT[0])
            }
            // A search is a program's; a model without one recalls nothing.
            Role::Memory | Role::WebSearch => (json!({"evidence": []}), 0),
            Role::Solver => (json!({"draft_answer": self.solve(rng)}), SOLVING[self.skill as usize]),
            Role::Critic => {
                let remark = match self.finds_fault(of(FINDS), rng) {
                    true => format!("The draft answer {WRONG}."),
                    false => "The draft answer stands.".to_owned(),
                };
                (json!({"critique": remark}), THOUGHT[1])
            }
            Role::Verifier => {
                let status = match (self.finds_fault(of(FINDS), rng), self.derived()) {
                    (true, _) => Support::Unsupported,
                    (false, Some(_)) => Support::Supported,
                    (false, None) => Support::PartiallySupported,
                };
                (
                    json!({"verification": {"status": status, "notes": "held against the evidence"}}),
                    THOUGHT[2],
                )
            }
            Role::Synthesiser => (json!({"merged_answer": self.merge(rng)}), THOUGHT[3]),
            Role::Evaluator => {
                let done = !self.finds_fault(of(DOUBTS), rng);
                let reason = if done { "The goal is reached." } else { "The answer may be wrong." };
                (json!({"done": done, "reason": reason}), THOUGHT[4])
            }
        }
    }

    /// What follows from the evidence.
    fn derived(&self) -> Option<String> {
        let texts = self.document.evidence.iter().map(|found| found.text.as_str());
        Facts::read(self.models.words, texts).answer(self.question.as_ref()?)
    }

    /// Whether somebody has found fault with the draft.
    fn told(&self) -> bool {
        let unsupported =
            self.document.verification.as_ref().is_some_and(|v| v.status == Support::Unsupported);
        unsupported || self.document.critique.as_ref().is_some_and(|said| said.contains(WRONG))
    }

    fn solve(&self, rng: &mut Rng) -> String {
        let draft = self.document.draft_answer.as_deref();
        if let Some(draft) = draft.filter(|_| !self.told() && rng.unit() < KEEPS) {
            return draft.to_owned();
        }
        let Some(question) = &self.question else { return NOT_STATED.to_owned() };
        let class = question.class;
        let skilled = |class: Class| {
            let [small, fast] = of_class(&SIZES, class);
            of_class(&SKILLS, class)[self.skill as usize] * [small, fast, 1.0][self.size as usize]
        };
        match self.derived() {
            Some(right) => {
                let mut p = skilled(class);
                if self.document.constraints.iter().any(|c| c == PLANNED) {
                    p = close(p, of_class(&PLAN, class));
                }
                if draft.is_some() && self.told() {
                    p = close(p, TOLD);
                }
                if rng.unit() < p { right } else { self.err(question, rng) }
            }
            None => {
                // A fact that is missing looks like one that no document states.
                let admits =
                    if self.document.evidence.is_empty() { ADMITS } else { skilled(Class::OutOfCorpus) };
                match rng.unit() < admits {
                    true => NOT_STATED.to_owned(),
                    false => self.invent(question, rng),
                }
            }
        }
    }

    /// A wrong answer that one could take for the right one, and is not the draft that was found fault with.
    fn err(&self, question: &Question, rng: &mut Rng) -> String {
        let mut wrong = self.models.known.distractors(question);
        wrong.retain(|answer| {
            Some(answer.as_str()) != self.document.draft_answer.as_deref().filter(|_| self.told())
        });
        match wrong.is_empty() {
            true => NOT_STATED.to_owned(),
            false => wrong.swap_remove(rng.below(wrong.len() as u32) as usize),
        }
    }

    /// An answer without grounds.
    fn invent(&self, question: &Question, rng: &mut Rng) -> String {
        let known = self.models.known.answer(question).filter(|_| rng.unit() < KNOWS[self.size as usize]);
        known.unwrap_or_else(|| self.err(question, rng))
    }

    /// Whether a fault is found with the draft: one that is there, as often as `finds` says, or one that is not.
    fn finds_fault(&self, finds: f64, rng: &mut Rng) -> bool {
        let draft = self.document.merged_answer.as_deref().or(self.document.draft_answer.as_deref());
        let right = self.derived().unwrap_or_else(|| NOT_STATED.to_owned());
        let p = if draft == Some(&*right) { FALSE_ALARM[self.size as usize] } else { finds };
        rng.unit() < p
    }

    /// One answer out of those of the branches, or of the draft.
    fn merge(&self, rng: &mut Rng) -> String {
        if self.document.branches.is_empty() && self.told() {
            return self.solve(rng);
        }
        // The answer of the branches that most of those give which were not found wrong.
        let status =
            |b: &relevo::coordinate::document::BranchResult| b.verification.as_ref().map(|v| v.status);
        let standing = self.document.branches.iter().filter(|b| status(b) != Some(Support::Unsupported));
        let answers: Vec<&str> = standing.map(|b| b.draft_answer.as_str()).collect();
        let most = answers.iter().rev().max_by_key(|a| answers.iter().filter(|b| b == a).count());
        let draft = most.copied().or(self.document.answer());
        draft.map_or_else(|| self.solve(rng), str::to_owned)
    }
}

/// What a good plan asks for.
const PLANNED: &str = "Look up every fact that the answer rests on, and hold it against what once was true.";
