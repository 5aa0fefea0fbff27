//! What an agent's card declares about the values that it returns.

use std::collections::HashMap;

use a2a::{AgentCard, AgentExtension};
use relevo_core::units::Bounds;
use serde_json::{Value, json};

use super::{EXTENSION, Emit, TauUnit, Terms, WireError, number, object, refused, word};

/// The largest bound of V that may be declared, up or down.
const BOUND_MAX: f64 = 1e9;

impl Terms {
    /// What the card declares; `None` where it does not declare the extension.
    pub fn of_card(card: &AgentCard) -> Result<Option<Terms>, WireError> {
        let extensions = card.capabilities.extensions.as_deref().unwrap_or_default();
        let mut declared = extensions.iter().filter(|extension| extension.uri == EXTENSION);
        let Some(first) = declared.next() else { return Ok(None) };
        if declared.next().is_some() {
            return refused(word::BAD_CARD, "the extension is declared twice: declare it once");
        }
        if first.required == Some(true) {
            return refused(
                word::BAD_CARD,
                "`required` is true: it must be false, since whoever does not know the extension is served too",
            );
        }
        first.params.as_ref().and_then(of_params).map(Some).ok_or_else(|| WireError {
            word: word::BAD_CARD,
            message: "the params must be {\"v\": {\"min\", \"max\"}, \"discount\", \"tauUnit\", \"emit\"} and nothing else, \
                      with min < max, both within 1e9 of 0, and the discount in [0, 1]"
                .into(),
        })
    }

    /// What the card of an agent with these terms declares.
    pub fn declaration(&self) -> AgentExtension {
        let params = [
            ("v", json!({"min": self.bounds.min(), "max": self.bounds.max()})),
            ("discount", json!(self.discount)),
            ("tauUnit", json!(self.tau_unit.name())),
            ("emit", json!(self.emit.name())),
        ];
        AgentExtension {
            uri: EXTENSION.to_owned(),
            description: Some("One number back for each handoff".to_owned()),
            required: Some(false),
            params: Some(params.map(|(name, value)| (name.to_owned(), value)).into()),
        }
    }
}

fn of_params(params: &HashMap<String, Value>) -> Option<Terms> {
    const FIELDS: [&str; 4] = ["v", "discount", "tauUnit", "emit"];
    if params.len() != FIELDS.len() {
        return None;
    }
    let [v, discount, tau_unit, emit] = FIELDS.map(|name| params.get(name));
    let v = object(v?, &["min", "max"], &[])?;
    let bound = |name: &str| number(&v[name]).filter(|bound| bound.abs() <= BOUND_MAX);
    let (min, max) = (bound("min")?, bound("max")?);
    Some(Terms {
        bounds: Bounds::new(min, max).ok().filter(|_| min < max)?,
        discount: number(discount?).filter(|discount| (0.0..=1.0).contains(discount))?,
        tau_unit: [TauUnit::Call, TauUnit::Second, TauUnit::Handoff]
            .into_iter()
            .find(|unit| tau_unit.and_then(Value::as_str) == Some(unit.name()))?,
        emit: [Emit::Activation, Emit::Operation]
            .into_iter()
            .find(|when| emit.and_then(Value::as_str) == Some(when.name()))?,
    })
}

impl TauUnit {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            TauUnit::Call => "call",
            TauUnit::Second => "second",
            TauUnit::Handoff => "handoff",
        }
    }
}

impl Emit {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Emit::Activation => "activation",
            Emit::Operation => "operation",
        }
    }
}
