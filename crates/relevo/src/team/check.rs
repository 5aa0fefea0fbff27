//! What a team file must hold beyond its form, and how a fault is told: with its line, and the nearest known word.

use std::collections::BTreeSet;

use relevo_core::{ids::AgentId, learner::SpecError};
use toml::de::{DeTable, DeValue};

use super::{
    AgentSpec, AskedOperation, Conditions, EpsilonSection, FINISH, LearnerSection, PolicySection, ReplyForm,
    RunSpec, TeamSpec,
    check_coordinator::{check_coordinator, check_kind},
    judges::check_judge,
};
use crate::interface::{BUILT_IN, compile};

impl TeamSpec {
    /// `written` is the file as it is, without defaults.
    pub(super) fn check(&self, written: &toml::Value) -> Result<(), Fault> {
        let names: BTreeSet<&str> = self.agents.iter().map(|a| a.name.as_str()).collect();
        let known = |place: String, name: &str, what: &str| match names.contains(name) {
            true => Ok(()),
            false => {
                let finish = (what != "start").then_some(FINISH);
                Err(unknown(place, name, what, names.iter().copied().chain(finish)))
            }
        };
        if self.agents.is_empty() {
            return Err(Fault::new("agents", "a team needs at least one agent: add an [[agents]] section"));
        }
        if self.agents.len() > 10_000 {
            return Err(Fault::new("agents", "a team has at most 10000 agents"));
        }
        let agents = self.agents.iter().enumerate();
        let places = agents.map(|(i, a)| (format!("agents/{i}/name"), &a.name));
        for (place, name) in [("name".to_owned(), &self.name)].into_iter().chain(places) {
            check_name(place, name)?;
        }
        let mut taken = BTreeSet::new();
        for (i, AgentSpec { name, .. }) in self.agents.iter().enumerate() {
            let place = format!("agents/{i}/name");
            if name == FINISH {
                let message =
                    format!("no agent may be called {FINISH:?}, the choice that ends a task: rename it");
                return Err(Fault::new(place, message));
            }
            if !taken.insert(name) {
                return Err(Fault::new(place, format!("two agents are called {name:?}: rename one")));
            }
        }
        check_kind(self, written)?;
        match &self.coordinator {
            Some(section) => check_coordinator(section, self)?,
            None => known("start".into(), &self.start, "start")?,
        }
        let sources = [
            ("tasks", self.tasks.is_some()),
            ("problems", self.problems.is_some()),
            ("simulate", self.simulate.is_some()),
        ];
        let mut stated = sources.iter().filter(|(_, stated)| *stated).map(|(key, _)| *key);
        // Whether there are none is minded by those who need them: a node is brought its tasks by others.
        if let (Some(one), Some(other)) = (stated.next(), stated.next()) {
            let what = format!("a team has either [{one}] or [{other}], not both: leave one out");
            return Err(Fault::new(one, what));
        }
        if let Some(section) = &self.problems {
            let known = relevo_lm::Level::ALL.map(relevo_lm::Level::name);
            let mut levels = section.levels.iter().enumerate();
            if let Some((i, level)) = levels.find(|(_, level)| !known.contains(&level.as_str())) {
                return Err(unknown(format!("problems/levels/{i}"), level, "a level", known.into_iter()));
            }
            for name in section.files.keys() {
                check_name(format!("problems/files/{name}"), name)?;
                if known.contains(&name.as_str()) {
                    let what =
                        format!("{name:?} is a level of generated problems: give the dataset another name");
                    return Err(Fault::new(format!("problems/files/{name}"), what));
                }
            }
        }
        self.tasks.iter().try_for_each(|tasks| check_judge(&tasks.judge))?;
        self.check_remotes(written)?;
        for (i, agent) in self.agents.iter().enumerate().filter(|(_, agent)| agent.remote.is_none()) {
            self.check_agent(&format!("agents/{i}"), agent, &known)?;
        }
        for (i, flow) in self.workflows.iter().enumerate() {
            let place = format!("workflows/{i}");
            let what = format!("workflow {:?}", shown(&flow.name));
            let fault = match (flow.route.is_empty(), flow.rules.is_empty()) {
                (true, true) => Some("says nobody's turn: add route = [..] or rules = [..]"),
                (false, false) => Some("has both a route and rules: leave one of them out"),
                (true, false) if flow.repeat_until.is_some() => {
                    Some("has rules, which go on as long as they hold: repeat_until is for a route")
                }
                _ => None,
            };
            if let Some(fault) = fault {
                return Err(Fault::new(place + "/name", format!("{what} {fault}")));
            }
            let route = flow.route.iter().enumerate().map(|(k, to)| (format!("{place}/route/{k}"), to));
            let rules = flow.rules.iter().enumerate().map(|(k, r)| (format!("{place}/rules/{k}/to"), &r.to));
            // Which cells there are is known when variants are.
            let named = route.chain(rules).filter(|(_, to)| *to != FINISH && self.coordinator.is_none());
            for (place, to) in named {
                known(place, to, &what)?;
            }
            for (k, rule) in flow.rules.iter().enumerate() {
                self.check_conditions(&format!("{place}/rules/{k}/when"), &rule.when)?;
            }
            flow.repeat_until
                .iter()
                .try_for_each(|c| self.check_conditions(&format!("{place}/repeat_until"), c))?;
        }
        self.check_payload()?;
        self.check_guards()?;
        self.check_trace()?;
        self.check_models()?;
        self.check_tools()?;
        let RunSpec { episodes, evaluation_tasks, max_handoffs, .. } = self.run;
        let counts = [
            ("episodes", episodes),
            ("evaluation_tasks", evaluation_tasks),
            ("max_handoffs", u64::from(max_handoffs)),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, n)| *n == 0) {
            return Err(Fault::new(format!("run/{key}"), format!("{key} is 0: it must be at least 1")));
        }
        let [min, max] = self.learner.values;
        if min > max {
            return Err(Fault::new(
                "learner/values",
                format!("values is [{min}, {max}]: write the smallest value first, then the largest"),
            ));
        }
        if let LearnerSection {
            policy: PolicySection::EpsilonGreedy { epsilon: EpsilonSection::Ramp { over, .. }, .. },
            ..
        } = &self.learner
            && !(*over > 0.0 && *over <= 1.0)
        {
            return Err(Fault::new(
                "learner/policy/epsilon/over",
                format!("over is {over}: it is a share of the episodes, in (0, 1]"),
            ));
        }
        // Whatever the learner refuses is refused here, before anything runs.
        let participants = if self.coordinator.is_some() { 1 } else { self.agents.len() };
        for i in (0..participants).filter(|i| self.agents[*i].remote.is_none()) {
            let spec = self.participant(AgentId(i as u32), self.run.episodes);
            let spec = spec.map_err(|e| Fault::new("learner/discount", format!("learner: {e}")))?;
            spec.learner.check().map_err(|e| Fault::new(learner_key(&e), format!("learner: {e}")))?;
        }
        Ok(())
    }

    fn check_agent(
        &self,
        place: &str,
        agent: &AgentSpec,
        known: &dyn Fn(String, &str, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let name = &agent.name;
        let fail = |key: &str, message: String| {
            Err(Fault::new(format!("{place}/{key}"), format!("agent {name:?} {message}")))
        };
        match (&agent.command, &agent.simulate, &self.simulate) {
            (Some(command), None, _) if command.is_empty() || command[0].is_empty() => {
                return fail(
                    "command",
                    "has an empty command: write command = [\"program\", \"argument\"]".into(),
                );
            }
            (Some(_), None, _) | (None, Some(_), Some(_)) => {}
            (None, Some(_), None) => {
                return fail(
                    "simulate",
                    "is simulated, but the team has no [simulate] section: add it, or give the agent a command = [..]"
                        .into(),
                );
            }
            (Some(_), Some(_), _) => {
                return fail(
                    "command",
                    "has both a command and a role to simulate: leave one of them out".into(),
                );
            }
            // Whether it has a model is known when its variants and its card are.
            (None, None, _) => {}
        }
        if agent.handoffs.is_empty() && self.coordinator.is_none() {
            return fail("handoffs", format!("can hand to nobody: add handoffs = [\"{FINISH}\"] or others"));
        }
        if agent.timeout_ms == 0 || agent.timeout_ms > 86_400_000 {
            let ms = agent.timeout_ms;
            return fail(
                "timeout_ms",
                format!("has a timeout_ms of {ms}: it must lie in 1 .. 86400000 (a day)"),
            );
        }
        let mut seen = BTreeSet::new();
        for (k, handoff) in agent.handoffs.iter().enumerate() {
            let key = format!("handoffs/{k}");
            if handoff.to() != FINISH {
                known(format!("{place}/{key}"), handoff.to(), &format!("handoffs of {name:?}"))?;
            }
            if !seen.insert(handoff.to()) {
                return fail(
                    &key,
                    format!("lists {:?} twice among its handoffs: keep one of them", handoff.to()),
                );
            }
            handoff
                .when()
                .map_or(Ok(()), |when| self.check_conditions(&format!("{place}/{key}/when"), when))?;
        }
        for (k, observed) in agent.observes.iter().enumerate() {
            self.check_observable(format!("{place}/observes/{k}"), observed)?;
        }
        let works = [
            ("command", agent.command.is_some()),
            ("simulate", agent.simulate.is_some()),
            ("tool", agent.tool.is_some()),
            ("model", agent.model.is_some()),
            ("skill", agent.skill.is_some()),
            ("operations", !agent.operations.is_empty()),
        ];
        let mut named = BTreeSet::new();
        for (k, operation) in agent.operations.iter().enumerate() {
            let key = format!("operations/{k}");
            check_name(format!("{place}/{key}"), operation.name())?;
            if !named.insert(operation.name()) {
                return fail(
                    &key,
                    format!("has the operation {:?} twice: keep one of them", operation.name()),
                );
            }
            let Some(AskedOperation { temperature, .. }) = operation.asked() else { continue };
            if !agent.acts_by_model() {
                let what =
                    "says how a model is asked for an operation, and acts by none: write the name alone";
                return fail(&key, what.into());
            }
            if temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
                return fail(&key, "has an operation with a temperature that is not in 0 .. 2".into());
            }
        }
        if agent.forwards && self.coordinator.is_some() {
            return fail("forwards", "only forwards: a coordinator has no use for it, leave it out".into());
        }
        if let Some((key, _)) = works.iter().find(|(_, stated)| agent.forwards && *stated) {
            return fail("forwards", format!("only forwards, and has a {key}: leave one of them out"));
        }
        if agent.reply != ReplyForm::Replace && (self.coordinator.is_some() || !agent.acts_by_model()) {
            let what = "has a reply, which is for models in a team without a coordinator: leave it out";
            return fail("reply", what.into());
        }
        Ok(())
    }

    fn check_payload(&self) -> Result<(), Fault> {
        let fault = |name: &str, what: String| Err(Fault::new(format!("payload/{name}"), what));
        if self.coordinator.is_some() && !self.payload.is_empty() {
            let what = "[payload] is for agents that decide for themselves: a coordinator has its document";
            return Err(Fault::new("payload", what));
        }
        if self.payload.len() > 64 {
            return Err(Fault::new("payload", "a team has at most 64 patterns"));
        }
        for (name, pattern) in &self.payload {
            check_name(format!("payload/{name}"), name)?;
            if BUILT_IN.contains(&format!("payload.{name}").as_str()) {
                return fault(name, format!("payload.{name} means something else: choose another name"));
            }
            if let Err(e) = compile(pattern) {
                return fault(name, format!("{name} is no pattern: {e}"));
            }
        }
        Ok(())
    }

    pub(super) fn check_conditions(&self, place: &str, conditions: &Conditions) -> Result<(), Fault> {
        conditions.keys().try_for_each(|name| self.check_observable(format!("{place}/{name}"), name))
    }

    /// What an agent may observe besides facts: see [`crate::interface`].
    fn check_observable(&self, place: String, name: &str) -> Result<(), Fault> {
        let namespaces = ["payload", "call", "handoff", "own"];
        match name.split_once('.') {
            Some(("own", rest)) if !rest.is_empty() => Ok(()),
            Some(("payload", rest)) if self.payload.contains_key(rest) => Ok(()),
            Some((space, _)) if namespaces.contains(&space) && !BUILT_IN.contains(&name) => {
                let patterns: Vec<String> =
                    self.payload.keys().map(|name| format!("payload.{name}")).collect();
                let known = BUILT_IN.iter().copied().chain(patterns.iter().map(String::as_str));
                Err(unknown(place, name, "an observation", known))
            }
            _ if name.is_empty() => Err(Fault::new(
                place,
                "an observation has an empty name: write that of a fact, or one such as \"payload.kind\"",
            )),
            _ => Ok(()),
        }
    }
}

/// A fault found after parsing: where in the file, and what to say.
pub(super) struct Fault {
    /// Keys and indices from the top, as deep as the file goes.
    pub(super) place: Vec<String>,
    pub(super) message: String,
}

impl Fault {
    /// `place` as in `agents/1/handoffs`.
    pub(super) fn new(place: impl AsRef<str>, message: impl Into<String>) -> Self {
        let place = place.as_ref().split('/').map(str::to_owned).collect();
        Fault { place, message: message.into() }
    }
}

/// Whether something may be called `name`.
pub(super) fn check_name(place: String, name: &str) -> Result<(), Fault> {
    let plain = |c: char| c.is_alphanumeric() || "-_.@:".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name.starts_with('.') {
        let name = shown(name);
        return Err(Fault::new(
            place,
            format!(
                "{name:?} is no name: use 1 to 64 letters, digits and the signs - _ . @ : (no . in front)"
            ),
        ));
    }
    Ok(())
}

/// The line of a byte of a text, from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

/// The line of the innermost part of `place` that the text spells out.
pub fn place_in(text: &str, place: &[String]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?.into_inner();
    let mut value = &DeValue::Table(document);
    let mut start = None;
    for key in place {
        let (span, next) = match value {
            DeValue::Table(table) => match table.get_key_value(key.as_str()) {
                Some((key, next)) => (key.span(), next),
                None => break,
            },
            DeValue::Array(list) => match key.parse().ok().and_then(|i: usize| list.get(i)) {
                Some(next) => (next.span(), next),
                None => break,
            },
            _ => break,
        };
        start = Some(span.start);
        value = next.get_ref();
    }
    start.map(|offset| line_of(text, offset))
}

/// TOML has `nan` and `inf`; a team has no use for them.
pub(super) fn all_finite(value: &toml::Value, place: &mut Vec<String>) -> Result<(), Fault> {
    let mut within = |key: String, value: &toml::Value| {
        place.push(key);
        all_finite(value, place)?;
        place.pop();
        Ok(())
    };
    match value {
        toml::Value::Table(table) => table.iter().try_for_each(|(key, v)| within(key.clone(), v)),
        toml::Value::Array(list) => list.iter().enumerate().try_for_each(|(i, v)| within(i.to_string(), v)),
        toml::Value::Float(x) if !x.is_finite() => {
            let key = place.iter().rev().find(|k| k.parse::<usize>().is_err()).map_or("a number", |k| k);
            let message = format!("{} is {x}: it must be a finite number", shown(key));
            Err(Fault { place: place.clone(), message })
        }
        _ => Ok(()),
    }
}

/// The key of the learner section that a fault is about.
fn learner_key(error: &SpecError) -> String {
    let key = match error {
        SpecError::MeanWithBootstrapping { .. } => "step",
        SpecError::Combination(_) => "extensions",
        SpecError::Shape(_) => "estimator",
        SpecError::Range { what, .. } => match *what {
            "the exponent of the step rule" | "the constant step" => "step",
            "lambda" => "credit",
            "the initial value" => "initial",
            "the weight of the standard error" | "the refresh threshold" => "extensions",
            _ => "policy",
        },
    };
    format!("learner/{key}")
}

pub(super) fn unknown<'a>(
    place: String,
    name: &str,
    what: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Fault {
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
    };
    Fault::new(place, format!("{what}: {:?} is unknown; {hint}", shown(name)))
}

/// As much of a word as a message has room for.
pub(crate) fn shown(word: &str) -> &str {
    &word[..word.floor_char_boundary(80)]
}

/// The known word that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    known
        .filter_map(|k| {
            let k_length = k.chars().count();
            let most = 1 + length.max(k_length) / 3;
            // The distance is at least the difference in length, and costs their product to find.
            (length.abs_diff(k_length) <= most)
                .then(|| (strsim::damerau_levenshtein(word, k), k))
                .filter(|(distance, _)| *distance <= most)
        })
        .min()
        .map(|(_, k)| k)
}

/// What the parser says, in the words of the file: the nearest known key first, and no types of this program.
pub fn plainly(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (Some(kind), Some((word, known))) = (
        [("unknown field", "key"), ("unknown variant", "value")].iter().find(|(m, _)| message.starts_with(m)),
        quoted.split_first(),
    ) {
        let near = nearest(word, known.iter().copied());
        let hint = near.map_or(String::new(), |near| format!("did you mean {near:?}? "));
        return format!("unknown {} {:?}; {hint}known are {}", kind.1, shown(word), known.join(", "));
    }
    if let (true, Some(key)) = (message.starts_with("missing field"), quoted.first()) {
        return format!("the key {key:?} is missing here: add it");
    }
    let plain = [
        ("expected f64", "expected a number"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected usize", "expected a whole number, 0 or more"),
        (
            "invalid type: map, expected a sequence",
            "one table where a list is expected: write [[..]], with two brackets",
        ),
    ];
    plain.iter().fold(message.to_owned(), |message, (theirs, ours)| message.replace(theirs, ours))
}
