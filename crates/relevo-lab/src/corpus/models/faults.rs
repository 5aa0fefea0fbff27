//! What goes wrong between a team and its models.

use relevo_core::Rng;

use crate::model_server::Reply;

/// How often an answer is spoilt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The share of requests.
    pub rate: f64,
}

impl Faults {
    /// An answer, or what becomes of it: an error 500, a 429 that says when to come again, a body that is no answer, one that
    /// breaks off, or an answer cut short. A function of the seed and of the number of the request, so that an attempt
    /// that is made again draws again.
    pub(super) fn spoil(self, seed: u64, number: u64, answer: Reply) -> Reply {
        let mut rng = Rng::stream(seed, "faults").fork([number, 0, 0]);
        if rng.unit() >= self.rate {
            return answer;
        }
        let text = |answer: Reply| match answer {
            Reply::Think { text, .. } | Reply::Say(text) => text,
            _ => String::new(),
        };
        match rng.below(5) {
            0 => Reply::refuse(500, "server_error"),
            1 => match Reply::refuse(429, "rate_limit_exceeded") {
                Reply::Refuse { status, body, .. } => Reply::Refuse { status, body, retry_after: Some("0") },
                other => other,
            },
            2 => Reply::Raw("<html>bad gateway</html>"),
            3 => Reply::BreakOff(text(answer)),
            _ => {
                let mut text = text(answer);
                text.truncate(text.floor_char_boundary(text.len() / 2));
                Reply::CutOff(text)
            }
        }
    }
}
