//! What is handed over: it comes from the task or from the agent before, [`Agent::perform`] turns it into the next
//! one, and the driver passes it on beside the handoff. The core never sees it, only what an interface observes of it.
//!
//! An artifact has two parts: a few small public [`Facts`], which guards, judges and interfaces may read, and a payload
//! of bytes, which only the agents understand.
//!
//! [`Agent::perform`]: crate::agent::Agent::perform

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most facts that an artifact, or the private notes of an agent, may hold.
pub const FACTS_MAX: usize = 64;

/// The longest name of a fact.
pub const FACT_NAME_BYTES_MAX: usize = 64;

/// The longest text that a fact may have for its value. What is longer belongs into the payload.
pub const FACT_TEXT_BYTES_MAX: usize = 256;

/// The value of a fact. Floats are left out on purpose: equal facts must have equal bytes everywhere.
///
/// In JSON it is the bare value. Reading one refuses every other kind of value; whoever builds [`Scalar::Text`] by hand
/// is held to its limit by [`check_facts`].
///
/// ```
/// use relevo::artifact::Scalar;
///
/// let seven: Scalar = serde_json::from_str("7").unwrap();
/// assert_eq!(seven, Scalar::Int(7));
/// assert!(serde_json::from_str::<Scalar>("7.5").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged, try_from = "Value")]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text of at most [`FACT_TEXT_BYTES_MAX`] bytes.
    Text(String),
}

/// Named values in the order of their names: at most [`FACTS_MAX`] of them, names of 1 to [`FACT_NAME_BYTES_MAX`]
/// characters out of `a-z 0-9 _ . -`. The doors [`parse_facts`] and [`merge_facts`] keep these limits, and
/// [`check_facts`] tests them.
pub type Facts = BTreeMap<String, Scalar>;

/// What is handed over: public facts, and a payload of bytes that is shared, never copied, by its clones.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Artifact {
    /// What guards, judges and interfaces may read.
    pub facts: Facts,
    /// What the agents work on.
    pub payload: Arc<[u8]>,
}

/// Facts outside their limits; the message says which fact, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FactsError(String);

/// Facts from a JSON object. Floats, nulls, lists, objects, and whatever is too long or too much, are refused.
pub fn parse_facts(object: Map<String, Value>) -> Result<Facts, FactsError> {
    check_count(object.len())?;
    let mut facts = Facts::new();
    for (name, value) in object {
        check_name(&name)?;
        let value = Scalar::try_from(value).map_err(|e| FactsError(format!("fact `{name}`: {e}")))?;
        facts.insert(name, value);
    }
    Ok(facts)
}

/// `facts` with those in `over` added or put in the place of the old ones.
pub fn merge_facts(mut facts: Facts, over: Facts) -> Result<Facts, FactsError> {
    facts.extend(over);
    check_count(facts.len())?;
    Ok(facts)
}

/// Whether facts that were not read by [`parse_facts`] keep the limits.
pub fn check_facts(facts: &Facts) -> Result<(), FactsError> {
    check_count(facts.len())?;
    for (name, value) in facts {
        check_name(name)?;
        if let Scalar::Text(text) = value {
            check_text(text).map_err(|e| FactsError(format!("fact `{name}`: {e}")))?;
        }
    }
    Ok(())
}

fn check_count(count: usize) -> Result<(), FactsError> {
    if count > FACTS_MAX {
        return Err(FactsError(format!(
            "{count} facts, where at most {FACTS_MAX} are allowed; put the rest into the payload"
        )));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), FactsError> {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
    if name.is_empty() || name.len() > FACT_NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let shown = &name[..name.floor_char_boundary(FACT_NAME_BYTES_MAX)];
        return Err(FactsError(format!(
            "fact name {shown:?} ({} bytes) is not allowed; use 1 to {FACT_NAME_BYTES_MAX} characters out of a-z 0-9 _ . -",
            name.len()
        )));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), FactsError> {
    if text.len() > FACT_TEXT_BYTES_MAX {
        return Err(FactsError(format!(
            "a text of {} bytes, where at most {FACT_TEXT_BYTES_MAX} are allowed; put it into the payload",
            text.len()
        )));
    }
    Ok(())
}

impl TryFrom<Value> for Scalar {
    type Error = FactsError;

    fn try_from(value: Value) -> Result<Self, FactsError> {
        let refused = |what: &str, instead: &str| {
            Err(FactsError(format!(
                "{what}, where true, false, a whole number or a text is allowed; {instead}"
            )))
        };
        match value {
            Value::Bool(value) => Ok(Scalar::Bool(value)),
            Value::Number(number) => match number.as_i64() {
                Some(value) => Ok(Scalar::Int(value)),
                None if number.is_u64() => {
                    refused("a number above 9223372036854775807", "write it as a text")
                }
                None => refused("a number with a fraction", "scale it to a whole number"),
            },
            Value::String(text) => check_text(&text).map(|()| Scalar::Text(text)),
            Value::Null => refused("null", "leave the fact out"),
            Value::Array(_) => refused("a list", "put it into the payload"),
            Value::Object(_) => refused("an object", "put it into the payload"),
        }
    }
}

impl<C> minicbor::Encode<C> for Scalar {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Scalar::Bool(value) => e.bool(*value)?,
            Scalar::Int(value) => e.i64(*value)?,
            Scalar::Text(text) => e.str(text)?,
        };
        Ok(())
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Scalar {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        use minicbor::data::Type;
        Ok(match d.datatype()? {
            Type::Bool => Scalar::Bool(d.bool()?),
            Type::String => Scalar::Text(d.str()?.to_owned()),
            _ => Scalar::Int(d.i64()?),
        })
    }
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Scalar::Bool(value)
    }
}

impl From<i64> for Scalar {
    fn from(value: i64) -> Self {
        Scalar::Int(value)
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Bool(value) => value.fmt(f),
            Scalar::Int(value) => value.fmt(f),
            Scalar::Text(text) => text.fmt(f),
        }
    }
}

/// Shows how long the payload is, never what it says: a payload has no place in a log.
impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("facts", &self.facts)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Facts, String> {
        parse_facts(serde_json::from_str(json).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn facts_survive_a_round_trip_through_json() {
        let json = r#"{"a.b-c_1":true,"n":-9223372036854775808,"t":"drei"}"#;
        let facts = parse(json).unwrap();
        assert_eq!(serde_json::to_string(&facts).unwrap(), json);
        assert_eq!(serde_json::from_str::<Facts>(json).unwrap(), facts);
        assert_eq!(check_facts(&facts), Ok(()));
    }

    #[test]
    fn what_is_no_fact_is_refused_by_name() {
        for (json, said) in [
            (r#"{"x":1.0}"#, "fact `x`: a number with a fraction"),
            (r#"{"x":1e400}"#, "number out of range"),
            (r#"{"x":9223372036854775808}"#, "above 9223372036854775807"),
            (r#"{"x":null}"#, "null"),
            (r#"{"x":[1]}"#, "a list"),
            (r#"{"x":{}}"#, "an object"),
            (r#"{"X":1}"#, "fact name \"X\""),
            (r#"{"":1}"#, "fact name \"\""),
            (r#"{"é":1}"#, "fact name \"é\""),
        ] {
            let object = serde_json::from_str(json).map_err(|e| e.to_string());
            let error = object.and_then(|o| parse_facts(o).map_err(|e| e.to_string())).unwrap_err();
            assert!(error.contains(said), "{json}: {error}");
        }
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let text = |n: usize| format!(r#"{{"x":"{}"}}"#, "y".repeat(n));
        assert!(parse(&text(256)).is_ok() && parse(&text(257)).is_err());
        assert!(serde_json::from_str::<Facts>(&text(257)).is_err());
        let name = |n: usize| format!(r#"{{"{}":1}}"#, "x".repeat(n));
        assert!(parse(&name(64)).is_ok() && parse(&name(65)).is_err());
        assert!(parse(&format!(r#"{{"{}":1}}"#, "é".repeat(33))).is_err(), "cut between characters");

        let many: Facts = (0..64).map(|i| (format!("n{i}"), Scalar::Int(i))).collect();
        let one = |name: &str| Facts::from([(name.to_owned(), Scalar::Bool(true))]);
        assert_eq!(merge_facts(many.clone(), one("n7")).unwrap()["n7"], Scalar::Bool(true));
        assert!(merge_facts(many, one("more")).is_err());
        assert!(check_facts(&Facts::from([("x".to_owned(), Scalar::Text("y".repeat(257)))])).is_err());
    }

    #[test]
    fn a_payload_is_not_printed() {
        let artifact = Artifact { payload: Arc::from(*b"secret"), ..Artifact::default() };
        assert_eq!(format!("{artifact:?}"), "Artifact { facts: {}, payload: 6 bytes }");
    }
}
