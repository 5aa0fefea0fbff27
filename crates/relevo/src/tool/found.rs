//! What came of the call of a tool, held to its limit.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde::Deserialize;
use serde_json::Value;

use crate::{agent::Failure, coordinate::document::Evidence};

/// What a tool found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Its texts, each with the address that it has of itself, if any.
    texts: Vec<(Option<String>, String)>,
    /// The same as a JSON value, if the tool gives one.
    structured: Option<Value>,
}

impl Found {
    /// Read a result: pictures and sounds are passed over. One that says of itself that it is an error is a refusal.
    pub(super) fn read(result: CallToolResult, bytes_max: u64) -> Result<Self, Failure> {
        let failed = result.is_error == Some(true);
        let text = |block| match block {
            ContentBlock::Text(text) => Some((None, text.text)),
            ContentBlock::Resource(embedded) => match embedded.resource {
                ResourceContents::TextResourceContents { uri, text, .. } => Some((Some(uri), text)),
                _ => None,
            },
            ContentBlock::ResourceLink(link) => {
                let description = link.description.unwrap_or_else(|| link.name.clone());
                Some((Some(link.uri), description))
            }
            _ => None,
        };
        let texts: Vec<_> = result.content.into_iter().filter_map(text).collect();
        let found = Found { texts, structured: result.structured_content };
        if failed {
            let reason = found.text();
            let silent = reason.trim().is_empty();
            return Err(Failure::Refused(if silent { "it gave no reason".into() } else { reason }));
        }
        let structured = found.structured.as_ref().map_or(0, |value| value.to_string().len());
        let bytes = found.texts.iter().map(|(_, text)| text.len()).sum::<usize>().max(structured);
        match bytes as u64 > bytes_max {
            true => Err(Failure::TooLong { what: "the result of the tool".into(), bytes_max }),
            false => Ok(found),
        }
    }

    /// All of it as one text: the texts, else the value.
    pub fn text(&self) -> String {
        match (self.texts.is_empty(), &self.structured) {
            (true, Some(value)) => value.to_string(),
            _ => self.texts.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n"),
        }
    }

    /// What it says as evidence: the sources and texts of its JSON, where that is a list of these or holds nothing but such
    /// a list; else every text by itself, from its address or from `source`.
    pub fn evidence(&self, source: &str) -> Vec<Evidence> {
        let parsed = || match &self.texts[..] {
            [(None, text)] => serde_json::from_str(text).ok(),
            _ => None,
        };
        if let Some(listed) = self.structured.clone().or_else(parsed).and_then(list) {
            return listed;
        }
        let piece = |(uri, text): &(Option<String>, String)| Evidence {
            source: uri.clone().unwrap_or_else(|| source.to_owned()),
            text: text.clone(),
        };
        match (self.texts.is_empty(), &self.structured) {
            (true, Some(_)) => vec![Evidence { source: source.to_owned(), text: self.text() }],
            _ => self.texts.iter().map(piece).collect(),
        }
    }
}

/// A list of sources and texts; their other keys are passed over.
fn list(value: Value) -> Option<Vec<Evidence>> {
    #[derive(Deserialize)]
    struct Item {
        source: String,
        text: String,
    }
    let value = match value {
        Value::Object(map) if map.len() == 1 => map.into_iter().next()?.1,
        other => other,
    };
    let items: Vec<Item> = serde_json::from_value(value).ok()?;
    Some(items.into_iter().map(|Item { source, text }| Evidence { source, text }).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(result: Value, bytes_max: u64) -> Result<Found, Failure> {
        Found::read(serde_json::from_value(result).unwrap(), bytes_max)
    }

    #[test]
    fn what_was_found_is_evidence() {
        let text = |text: &str| json!({"type": "text", "text": text});
        let listed = json!([{"source": "a", "text": "1", "score": 0.5}, {"source": "b", "text": "2"}]);
        let resource = json!({"type": "resource", "resource": {"uri": "file:///a", "text": "3"}});
        let picture = json!({"type": "image", "data": "", "mimeType": "image/png"});
        let two = [("a", "1"), ("b", "2")];
        let cases: [(Value, &[(&str, &str)]); 8] = [
            (json!({"content": [text("x"), picture, resource]}), &[("s.t", "x"), ("file:///a", "3")]),
            (json!({"content": [], "structuredContent": listed}), &two),
            (json!({"content": [text("x")], "structuredContent": {"result": listed}}), &two),
            (json!({"content": [text(&listed.to_string())]}), &two),
            (json!({"content": [], "structuredContent": {"n": 7}}), &[("s.t", "{\"n\":7}")]),
            (json!({"content": [text("x")], "structuredContent": {"n": 7}}), &[("s.t", "x")]),
            (json!({"content": [text("[]")]}), &[]),
            (json!({"content": []}), &[]),
        ];
        for (result, expected) in cases {
            let found = read(result.clone(), 1000).unwrap().evidence("s.t");
            let found: Vec<_> = found.iter().map(|e| (e.source.as_str(), e.text.as_str())).collect();
            assert_eq!(found, expected, "{result}");
        }
        assert_eq!(read(json!({"content": [text("x"), text("y")]}), 2).unwrap().text(), "x\ny");
        let long = read(json!({"content": [text("xyz")]}), 2).unwrap_err();
        assert!(matches!(long, Failure::TooLong { bytes_max: 2, .. }), "{long:?}");
        let refused = read(json!({"content": [text("why")], "isError": true}), 2).unwrap_err();
        assert_eq!(refused, Failure::Refused("why".into()));
    }
}
