//! What is handed over, and what comes back, as the parts of an A2A message or artifact.

use std::{borrow::Borrow, sync::Arc};

use a2a::{Part, PartContent};
use relevo::artifact::{Artifact, FACTS_MAX, Facts, Scalar, check_facts};
use serde_json::{Map, Number, Value};

use super::{Limits, NESTING_MAX, PARTS_MAX, WireError, refused, word};

/// The media type of the part that holds the facts.
pub const FACTS_MEDIA_TYPE: &str = "application/vnd.relevo.facts+json";

/// Whole numbers must lie within this: JSON readers and protobuf hold numbers as doubles, which are exact up to it.
const WHOLE_MAX: u64 = (1 << 53) - 1;

/// Whether an artifact can go to another organisation, and arrive as it is.
pub fn crosses(artifact: &Artifact, limits: &Limits) -> Result<(), WireError> {
    let is_exact = |fact: &Scalar| !matches!(fact, Scalar::Int(n) if n.unsigned_abs() > WHOLE_MAX);
    if check_facts(&artifact.facts).is_err() || !artifact.facts.values().all(is_exact) {
        return bad_facts();
    }
    check_size(artifact.payload.len(), limits)
}

/// The parts that stand for an artifact. For somebody who passes values the payload is `raw`; anybody else gets it as text
/// where it is text, because that is what agents read and people look at.
pub(super) fn to_parts(artifact: &Artifact, passes_value: bool) -> Vec<Part> {
    let facts = artifact.facts.iter().map(|(name, fact)| {
        let value = match fact {
            Scalar::Bool(b) => Value::from(*b),
            Scalar::Int(n) => Value::from(*n),
            Scalar::Text(text) => Value::from(text.as_str()),
        };
        (name.clone(), value)
    });
    let facts: Map<String, Value> = facts.collect();
    let facts =
        (!facts.is_empty()).then(|| Part::data(Value::Object(facts)).with_media_type(FACTS_MEDIA_TYPE));
    let payload = match std::str::from_utf8(&artifact.payload) {
        Ok(text) if !passes_value => Part::text(text).with_media_type("text/plain"),
        _ => Part::raw(artifact.payload.to_vec()).with_media_type("application/octet-stream"),
    };
    facts.into_iter().chain([payload]).collect()
}

/// The artifact that parts stand for: at most one part of facts, and either texts, which are joined by line breaks, or one
/// part of bytes, or one of JSON.
pub(super) fn of_parts<P: Borrow<Part>>(parts: &[P], limits: &Limits) -> Result<Artifact, WireError> {
    if !(1..=PARTS_MAX).contains(&parts.len()) {
        return refused(
            word::BAD_PARTS,
            format!("{} parts, where 1 to {PARTS_MAX} are allowed", parts.len()),
        );
    }
    let is_facts = |part: &&Part| part.media_type.as_deref() == Some(FACTS_MEDIA_TYPE);
    let (facts, payload): (Vec<&Part>, Vec<&Part>) = parts.iter().map(Borrow::borrow).partition(is_facts);
    let facts = match facts[..] {
        [] => Facts::new(),
        [Part { content: PartContent::Data(data), .. }] => of_data(data).map_or_else(bad_facts, Ok)?,
        _ => return bad_facts(),
    };
    let payload = match payload[..] {
        [] => Arc::default(),
        [Part { content: PartContent::Raw(bytes), .. }] => {
            check_size(bytes.len(), limits)?;
            Arc::from(&bytes[..])
        }
        [Part { content: PartContent::Data(data), .. }] => of_json(data)?,
        _ => of_texts(&payload, limits)?,
    };
    check_size(payload.len(), limits)?;
    Ok(Artifact { facts, payload })
}

fn of_texts(parts: &[&Part], limits: &Limits) -> Result<Arc<[u8]>, WireError> {
    let texts = parts.iter().map(|part| match &part.content {
        PartContent::Text(text) => Ok(text.as_str()),
        PartContent::Url(_) => refused(word::URL, "a payload behind a URL is not fetched: send its bytes"),
        _ => refused(
            word::BAD_PARTS,
            "several parts of which not all are text: send texts, or one part of bytes, or one of data",
        ),
    });
    let texts = texts.collect::<Result<Vec<&str>, _>>()?;
    check_size(texts.iter().map(|text| text.len() + 1).sum::<usize>() - 1, limits)?;
    Ok(texts.join("\n").into_bytes().into())
}

fn of_json(data: &Value) -> Result<Arc<[u8]>, WireError> {
    if !nests_within(data, NESTING_MAX) {
        return refused(word::TOO_DEEP, format!("data is nested deeper than {NESTING_MAX}: send it as text"));
    }
    Ok(ordered(data).to_string().into_bytes().into())
}

fn of_data(data: &Value) -> Option<Facts> {
    let object = data.as_object().filter(|object| object.len() <= FACTS_MAX)?;
    let facts = object.iter().map(|(name, value)| {
        let fact = match value {
            Value::Bool(b) => Scalar::Bool(*b),
            Value::Number(n) => Scalar::Int(exact(n)?),
            Value::String(text) => Scalar::Text(text.clone()),
            _ => return None,
        };
        Some((name.clone(), fact))
    });
    let facts = facts.collect::<Option<Facts>>()?;
    check_facts(&facts).is_ok().then_some(facts)
}

/// The whole number that this is, also where it is written `3.0`.
fn exact(n: &Number) -> Option<i64> {
    let whole = n.as_i64().or_else(|| n.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64));
    whole.filter(|n| n.unsigned_abs() <= WHOLE_MAX)
}

fn nests_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(values) => levels > 0 && values.iter().all(|value| nests_within(value, levels - 1)),
        Value::Object(object) => levels > 0 && object.values().all(|value| nests_within(value, levels - 1)),
        _ => true,
    }
}

/// The same JSON with names in order and numbers as they are after protobuf, so that equal data are equal bytes whatever
/// way they came.
fn ordered(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(ordered).collect(),
        Value::Object(object) => {
            let mut names: Vec<&String> = object.keys().collect();
            names.sort();
            names.into_iter().map(|name| (name.clone(), ordered(&object[name]))).collect()
        }
        Value::Number(n) => exact(n).map_or_else(|| Value::from(n.as_f64()), Value::from),
        _ => value.clone(),
    }
}

fn check_size(bytes: usize, limits: &Limits) -> Result<(), WireError> {
    let max = limits.payload_bytes_max;
    if bytes > max {
        return refused(
            word::TOO_LARGE,
            format!("a payload of {bytes} bytes, where at most {max} are allowed"),
        );
    }
    Ok(())
}

fn bad_facts<T>() -> Result<T, WireError> {
    refused(
        word::BAD_FACTS,
        format!(
            "facts are one object of at most {FACTS_MAX} names out of a-z 0-9 _ . -, with true, false, whole numbers within \
             {WHOLE_MAX}, or texts of at most {} bytes",
            relevo::artifact::FACT_TEXT_BYTES_MAX
        ),
    )
}
