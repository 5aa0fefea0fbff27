//! What a model replies to a comparison: parsed once. A value outside its limits costs its trajectory the score; a reply
//! that is no such reply costs all of them theirs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{EXPLANATION_BYTES_MAX, relative::Axis, shorten};

/// The longest reply that is read.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// What one trajectory got.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Marks {
    pub(super) quality: f64,
    pub(super) axes: BTreeMap<String, f64>,
    pub(super) explanation: String,
}

#[derive(Deserialize)]
struct Whole {
    trajectories: Vec<Value>,
}

#[derive(Deserialize)]
struct Entry {
    score: Option<f64>,
    axes: Option<BTreeMap<String, Option<f64>>>,
    explanation: Option<String>,
}

/// The marks of `count` trajectories, in their order, or why one has none.
pub(super) fn parse(text: &str, count: usize, axes: &[Axis]) -> Result<Vec<Result<Marks, String>>, String> {
    if text.len() > REPLY_BYTES_MAX {
        return Err(format!("a reply of {} bytes, where {REPLY_BYTES_MAX} are read", text.len()));
    }
    // Models like to put a fence or a word around their JSON.
    let object = text.find('{').and_then(|from| text.get(from..=text.rfind('}')?));
    let object = object.ok_or("the reply holds no JSON object")?;
    let whole: Whole = serde_json::from_str(object).map_err(|e| format!("the reply is not as asked: {e}"))?;
    if whole.trajectories.len() > 2 * count {
        return Err(format!("{} scores for {count} trajectories", whole.trajectories.len()));
    }
    let mut found: Vec<Option<Result<Marks, String>>> = vec![None; count];
    for value in whole.trajectories {
        let Some(id) = value.get("id").and_then(Value::as_u64) else { continue };
        let Some(place) = (id as usize).checked_sub(1).and_then(|at| found.get_mut(at)) else { continue };
        *place = Some(match place {
            Some(_) => Err("it was scored twice".to_owned()),
            None => serde_json::from_value(value).map_err(|e| e.to_string()).and_then(|e| marks(e, axes)),
        });
    }
    Ok(found.into_iter().map(|marks| marks.unwrap_or_else(|| Err("it was not scored".to_owned()))).collect())
}

fn marks(entry: Entry, axes: &[Axis]) -> Result<Marks, String> {
    let Entry { score, axes: given, explanation } = entry;
    let given: BTreeMap<String, f64> =
        given.unwrap_or_default().into_iter().filter_map(|(name, x)| Some((name, x?))).collect();
    let known = axes.iter().filter_map(|axis| Some((axis, *given.get(&axis.name)?)));
    let known: Vec<(&Axis, f64)> = known.collect();
    let holistic = score.map(|x| ("score", x));
    for (name, x) in known.iter().map(|(axis, x)| (axis.name.as_str(), *x)).chain(holistic) {
        if !(0.0..=1.0).contains(&x) {
            return Err(format!("{name} is {x}, which is not in [0, 1]"));
        }
    }
    // q = sum of w_i x_i / sum of w_i over the axes that were given, else the score of the whole
    let weight: f64 = known.iter().map(|(axis, _)| axis.weight).sum();
    let sum: f64 = known.iter().map(|(axis, x)| axis.weight * x).sum();
    let quality =
        if weight > 0.0 && weight.is_finite() { Some((sum / weight).clamp(0.0, 1.0)) } else { score };
    Ok(Marks {
        quality: quality.ok_or("it has neither axes nor a score")?,
        axes: known.into_iter().map(|(axis, x)| (axis.name.clone(), x)).collect(),
        explanation: shorten(explanation.unwrap_or_default(), EXPLANATION_BYTES_MAX),
    })
}
