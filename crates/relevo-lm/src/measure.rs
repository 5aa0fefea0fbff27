//! What a model does in the five fixed workflows of the paper's table, on problems that it has never seen.

use serde::{Deserialize, Serialize};

use crate::{
    chat::Role,
    generate::Continue,
    model::{Model, Request},
    problem::{Level, Problem, Split},
};

/// What the editor, the thinker and the checker are told, in this order; see [`crate::Skill`].
pub const PROMPTS: [(&str, &str); 3] = [
    ("editor", "Answer with the letter of the right option."),
    ("thinker", "Think step by step, then answer."),
    ("checker", "Check whether the answer is right."),
];

/// Who acts in each workflow: E, T and K are the editor, the thinker and the checker.
pub const WORKFLOWS: [(&str, &str); 5] =
    [("direct", "E"), ("CoT", "TE"), ("reflection", "EKE"), ("combine-E", "TEKE"), ("combine-T", "TEKTE")];

/// How often the checker says `right`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdicts {
    /// Of right answers, the share that it calls right.
    pub true_positive: f64,
    /// Of wrong answers, the share that it calls right.
    pub false_positive: f64,
}

/// Accuracies on one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracies {
    /// The level.
    pub level: Level,
    /// Problems of the evaluation half.
    pub problems: u64,
    /// The share that ends with the right letter, in the order of [`WORKFLOWS`].
    pub workflows: [f64; 5],
    /// Verdicts on answers without a rationale, in the workflow `reflection`.
    pub on_answers: Verdicts,
    /// Verdicts on answers with a rationale, in the workflow `combine-E`.
    pub on_rationales: Verdicts,
}

/// Measure a model, greedily, on the first problems of the evaluation half under a seed.
pub fn measure(model: &Model, level: Level, problems: u64, seed: u64) -> Accuracies {
    let problems: Vec<Problem> =
        (0..problems).map(|i| Problem::generate(Split::Evaluation, level, seed, i)).collect();
    let solo = play(model, &problems, "E");
    let thought = play(model, &problems, "T");
    let mut reached = vec![("E", solo), ("T", thought)];
    // Workflows share their beginnings.
    for (_, workflow) in WORKFLOWS {
        for end in 2..=workflow.len() {
            let (prefix, before) = (&workflow[..end], &workflow[..end - 1]);
            if !reached.iter().any(|(done, _)| *done == prefix) {
                let (_, so_far) =
                    reached.iter().find(|(done, _)| *done == before).expect("shorter ones come first");
                let next = speak(model, so_far, prefix.as_bytes()[end - 1]);
                reached.push((prefix, next));
            }
        }
    }
    let after =
        |workflow: &str| &reached.iter().find(|(done, _)| *done == workflow).expect("it was played").1;
    let right = |workflow: &str| -> Vec<bool> {
        after(workflow).iter().zip(&problems).map(|(text, p)| settled(text) == Some(p.key)).collect()
    };
    let share = |workflow: &str| {
        let right = right(workflow);
        right.iter().filter(|r| **r).count() as f64 / right.len().max(1) as f64
    };
    let verdicts = |answered: &str, checked: &str| {
        let rate = |which: bool| {
            let of = right(answered).into_iter().zip(after(checked)).filter(|(r, _)| *r == which);
            let said: Vec<bool> = of.map(|(_, text)| text.trim_end().ends_with("is right.")).collect();
            said.iter().filter(|r| **r).count() as f64 / said.len().max(1) as f64
        };
        Verdicts { true_positive: rate(true), false_positive: rate(false) }
    };
    Accuracies {
        level,
        problems: problems.len() as u64,
        workflows: WORKFLOWS.map(|(_, workflow)| share(workflow)),
        on_answers: verdicts("E", "EK"),
        on_rationales: verdicts("TE", "TEK"),
    }
}

fn play(model: &Model, problems: &[Problem], who: &str) -> Vec<String> {
    let texts: Vec<String> = problems.iter().map(Problem::to_string).collect();
    speak(model, &texts, who.as_bytes()[0])
}

/// Let one of them speak on every transcript.
pub(crate) fn speak(model: &Model, transcripts: &[String], who: u8) -> Vec<String> {
    let (name, system) = PROMPTS[b"ETK".iter().position(|k| *k == who).expect("one of the three")];
    // What a poor model said may have no form that it can read: then nothing is added.
    let requests = transcripts.iter().map(|text| {
        let prompt = model.prompt(&[(Role::System, system), (Role::User, text)]);
        prompt.ok().map(|prompt| Request { max_tokens: crate::lesson::SAID_MAX, ..Request::new(prompt) })
    });
    let requests: Vec<Option<Request>> = requests.collect();
    let asked: Vec<Request> = requests.iter().flatten().cloned().collect();
    let mut said = model.generate(&asked, &mut |_, _| Continue::Yes).into_iter();
    let block = |(text, request): (&String, &Option<Request>)| match request {
        Some(_) => format!("{text}\n\n[{name}]\n{}", said.next().expect("one for each").text),
        None => text.clone(),
    };
    transcripts.iter().zip(&requests).map(block).collect()
}

/// The letter that a transcript ends with.
pub fn settled(transcript: &str) -> Option<char> {
    let line = transcript.trim_end().lines().last()?;
    line.strip_prefix("Answer: ")?.chars().next()
}

/// How often the letter is right at once, and after steps: on a few problems, for the curves of training.
pub(crate) fn glance(model: &Model, level: Level, problems: u64) -> [f64; 2] {
    let problems: Vec<Problem> =
        (0..problems).map(|i| Problem::generate(Split::Evaluation, level, 1, i)).collect();
    ["E", "T"].map(|who| {
        let right = play(model, &problems, who)
            .iter()
            .zip(&problems)
            .filter(|(t, p)| settled(t) == Some(p.key))
            .count();
        right as f64 / problems.len().max(1) as f64
    })
}
