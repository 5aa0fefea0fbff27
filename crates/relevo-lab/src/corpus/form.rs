//! Sentences with holes: what writes a fact into a document also reads it out of one.

/// A sentence with holes `{}`, such as `{} is owned by the team {}.`; no two holes touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form(pub &'static str);

impl Form {
    /// The sentence with its holes filled, in their order.
    pub fn fill(self, values: &[&str]) -> String {
        let mut values = values.iter();
        let mut parts = self.0.split("{}");
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            out += values.next().expect("a value for each hole");
            out += part;
        }
        out
    }

    /// What stands in the holes of a sentence that has this form; empty without one.
    pub fn read(self, sentence: &str) -> Option<Vec<&str>> {
        let mut parts = self.0.split("{}");
        let mut rest = sentence.strip_prefix(parts.next()?)?;
        let mut values = vec![];
        let parts: Vec<&str> = parts.collect();
        for (at, part) in parts.iter().enumerate() {
            let end = match at + 1 == parts.len() {
                true => rest.strip_suffix(part)?.len(),
                false => rest.find(part)?,
            };
            values.push(&rest[..end]);
            rest = &rest[end + part.len()..];
        }
        (rest.is_empty() && values.iter().all(|value| !value.is_empty())).then_some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn what_was_filled_in_is_read_again() {
        let form = Form("Step {} of the {} of {}: {}.");
        let text = form.fill(&["2", "failover", "amber-mail", "drain the queue"]);
        assert_eq!(text, "Step 2 of the failover of amber-mail: drain the queue.");
        assert_eq!(form.read(&text).unwrap(), ["2", "failover", "amber-mail", "drain the queue"]);
        for other in ["Step 2 of the failover.", "Step  of the  of : .", "", "Step 2 of the a of b: c"] {
            assert_eq!(form.read(other), None, "{other}");
        }
        assert_eq!(Form("All is well.").read("All is well."), Some(vec![]));
    }
}
