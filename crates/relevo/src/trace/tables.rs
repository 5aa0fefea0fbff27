//! Sessions and tasks as tables, which the terminal and the page of HTML show alike.

use super::{
    session::{AgentFigures, SessionReport, Situation, Verdicts},
    task::{Call, Choice, Decision, Event, Task, TaskReport, Verdict},
};
use crate::report::table;

/// What neither the text nor the page ever holds.
pub(super) const NO_CONTENT: &str =
    "Told from the ledger alone: what agents were given and gave back is not in it.";

/// Rows under a caption; the first row is the head.
pub(crate) struct Section {
    pub(crate) caption: &'static str,
    pub(crate) rows: Vec<Vec<String>>,
    /// Whether it is so long that it is shown only when asked for.
    pub(crate) long: bool,
}

impl Section {
    fn new<const N: usize>(
        caption: &'static str,
        head: [&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) -> Self {
        let head = std::iter::once(head.map(str::to_owned).to_vec());
        Section { caption, rows: head.chain(rows.map(Vec::from)).collect(), long: false }
    }

    fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl SessionReport {
    /// The report as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and text") + "\n"
    }

    /// The report as a terminal shows it.
    pub fn to_text(&self) -> String {
        let mut out = format!("{}: {}\n", self.team, self.summary());
        self.notices.iter().for_each(|notice| out += &format!("! {notice}\n"));
        for section in self.sections().iter().filter(|section| !section.long) {
            out += &format!("\n{}:\n{}", section.caption, table(&section.rows));
        }
        out + "\n" + NO_CONTENT + "\n"
    }

    /// The run in one sentence.
    pub(super) fn summary(&self) -> String {
        let SessionReport { asked, ended, open, seed, totals, .. } = self;
        let open = if *open > 0 { format!(", {open} open") } else { String::new() };
        let returned = match &self.task_return {
            Some(estimate) => format!("; return {estimate}"),
            None => String::new(),
        };
        let halted = match &self.halted {
            Some(halted) => format!("; stopped by {halted}"),
            None => String::new(),
        };
        format!(
            "{ended} of {asked} tasks ended{open}, seed {seed}{returned}; calls {} ({} failed), tokens {}, money {}{halted}",
            totals.calls,
            totals.failures,
            totals.tokens,
            amount(totals.money)
        )
    }

    pub(super) fn sections(&self) -> Vec<Section> {
        let all = (self.ended + self.open).max(1) as f64;
        let agent = |of: &AgentFigures| {
            let ms = of.ms.map_or(String::new(), |ms| format!("{} / {} / {}", ms.p50, ms.p90, ms.p99));
            [
                of.agent.clone(),
                of.calls.to_string(),
                percent(of.share),
                of.failures.to_string(),
                of.tokens.to_string(),
                amount(of.money),
                ms,
                of.chosen.to_string(),
                of.skipped.to_string(),
            ]
        };
        let head = [
            "agent",
            "calls",
            "share of tasks",
            "failed calls",
            "tokens",
            "money",
            "ms (50 / 90 / 99%)",
            "chosen",
            "skipped",
        ];
        let agents = Section::new("Agents", head, self.agents.iter().map(agent));
        let count = |(word, n): (&str, u64)| [word.to_owned(), n.to_string()];
        let stops =
            self.stops.iter().map(|(stop, n)| [stop.to_owned(), n.to_string(), percent(n as f64 / all)]);
        let head = ["participant", "situation", "decisions", "explored", "choices"];
        let situation = |of: &Situation| {
            let explored = percent(of.explored as f64 / of.decisions.max(1) as f64);
            [
                of.participant.clone(),
                of.situation.clone(),
                of.decisions.to_string(),
                explored,
                of.choices.to_string(),
            ]
        };
        let situations = Section::new("Situations", head, self.situations.iter().map(situation));
        let head = [
            "task",
            "state",
            "return",
            "way",
            "calls",
            "failed",
            "tokens",
            "money",
            "ms",
            "decisions",
            "explored",
        ];
        let tasks = Section::new("Tasks", head, self.tasks.iter().map(task_row));
        let verdicts = (self.judged != Verdicts::default()).then(|| {
            let Verdicts { quality, unjudged, canaries, fooled, tokens, money, ms, .. } = self.judged;
            let quality = quality.map_or(String::new(), |quality| quality.to_string());
            let share = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.3}"));
            let of = if canaries > 0 { format!("{fooled} of {canaries}") } else { String::new() };
            let (swap, audit) = (self.judged.swap_agreement, self.judged.audit_agreement);
            let (unjudged, tokens, money) = (unjudged.to_string(), tokens.to_string(), amount(money));
            [quality, unjudged, of, share(swap), share(audit), tokens, money, ms.to_string()]
        });
        let head = [
            "quality",
            "could not be judged",
            "fooled by canaries",
            "agree when swapped",
            "agree with the auditor",
            "tokens",
            "money",
            "ms",
        ];
        let judged = Section::new("What judges said, and what that took", head, verdicts.into_iter());
        let sections = [
            agents,
            judged,
            Section::new("Why tasks stopped", ["reason", "tasks", "share"], stops),
            Section::new("Choices kept from decisions", ["guard", "choices"], self.masked.iter().map(count)),
            Section::new("Questions to people", ["about", "asked"], self.questions.iter().map(count)),
            Section::new("Their answers", ["answer", "given"], self.answers.iter().map(count)),
            Section { long: true, ..situations },
            Section { long: true, ..tasks },
        ];
        sections.into_iter().filter(|section| !section.is_empty()).collect()
    }
}

fn task_row(task: &Task) -> [String; 11] {
    [
        task.task.to_string(),
        task.state(),
        task.task_return.map_or(String::new(), |r| format!("{r:.4}")),
        task.way(),
        task.calls.to_string(),
        task.failures.to_string(),
        task.tokens.to_string(),
        amount(task.money),
        task.ms.to_string(),
        task.decisions.to_string(),
        task.explored.to_string(),
    ]
}

impl TaskReport {
    /// The report as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and text") + "\n"
    }

    /// The report as a terminal shows it.
    pub fn to_text(&self) -> String {
        let timeline = self.events();
        format!("{}\n\n{}\n{NO_CONTENT}\n", self.summary(), table(&timeline.rows))
    }

    /// The task in one sentence.
    pub(super) fn summary(&self) -> String {
        let Task { task, calls, failures, tokens, money, ms, handoffs, .. } = &self.task;
        let judged = self.task.quality.map_or(String::new(), |quality| format!(", quality {quality:.3}"));
        let returned = self.task.task_return.map_or(judged.clone(), |r| format!("{judged}, return {r:.4}"));
        format!(
            "{}, task {task}: {}{returned}; handoffs {handoffs}, calls {calls} ({failures} failed) of {ms} ms, tokens {tokens}, \
             money {}",
            self.team,
            self.task.state(),
            amount(*money)
        )
    }

    /// All events; those that were left out are counted in the last row.
    pub(super) fn events(&self) -> Section {
        let rows = self.timeline.iter().map(event_row);
        let left_out = (self.left_out > 0)
            .then(|| ["…".to_owned(), String::new(), format!("{} events more", self.left_out)]);
        Section::new("What happened", ["", "who", "what"], rows.chain(left_out))
    }
}

fn event_row(event: &Event) -> [String; 3] {
    match event {
        Event::HandedOver { from, to } => ["handoff".to_owned(), to.clone(), format!("from {from}")],
        Event::Decided(decision) => {
            let who = decision.participant.clone();
            [format!("decision {}", decision.decision), who, decided(decision)]
        }
        Event::Called(Call { call, agent, operation, ended, tokens, money, ms }) => {
            let operation = operation.as_ref().map_or(String::new(), |operation| format!("{operation}: "));
            let ms = ms.map_or(String::new(), |ms| format!(", {ms} ms"));
            let what = format!("{operation}{ended}, {tokens} tokens, {} of money{ms}", amount(*money));
            [format!("call {call}"), agent.clone(), what]
        }
        Event::Judged(Verdict { quality, confidence, tokens, money, ms }) => {
            let quality = quality.map_or("no verdict".to_owned(), |quality| format!("quality {quality:.3}"));
            let cost = format!("{tokens} tokens, {} of money, {ms} ms", amount(*money));
            ["judged".to_owned(), String::new(), format!("{quality}, confidence {confidence:.2}; {cost}")]
        }
        Event::Asked { agent, why } => ["question".to_owned(), agent.clone(), why.clone()],
        Event::Answered { granted, by } => {
            let answer = if *granted { "yes" } else { "no" };
            ["answer".to_owned(), by.clone(), answer.to_owned()]
        }
        Event::Learned { participant, situation, choice, target, step } => {
            let what = format!("{choice} at {situation}: target {target:.4}, step {step:.4}");
            ["learned".to_owned(), participant.clone(), what]
        }
    }
}

fn decided(decision: &Decision) -> String {
    let Decision { situation, choices, chosen, greedy, masked, policy_version, .. } = decision;
    let choice = |Choice { choice, probability, .. }: &Choice| format!("{choice} {}", percent(*probability));
    let choices: Vec<String> = choices.iter().map(choice).collect();
    let greedy = if *greedy { "the best known" } else { "exploring" };
    let masked: String =
        masked.iter().map(|m| format!("; {} kept out by {}", m.choices.join(", "), m.guard)).collect();
    format!(
        "{chosen} ({greedy}) at {situation}; could be {}{masked}; policy {policy_version}",
        choices.join(", ")
    )
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// A sum of money with as many digits as say something.
pub(crate) fn amount(money: f64) -> String {
    if money == 0.0 { "0".to_owned() } else { format!("{money:.4}") }
}
