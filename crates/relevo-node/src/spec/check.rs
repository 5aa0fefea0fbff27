//! What a node file must hold beyond its form.

use std::collections::BTreeMap;

use relevo::team::{TeamSpec, nearest};

use super::{ClientCertificate, NodeSpec, PeerSection};
use crate::transport::a2a::{Certificate, TokenHash};

/// The place of a fault, and what it is.
type Fault = (Vec<String>, String);

impl NodeSpec {
    pub(super) fn check(&self, team: &TeamSpec) -> Result<(), Fault> {
        let fault = |place: &str, message: String| {
            Err((place.split('/').map(str::to_owned).collect::<Vec<_>>(), message))
        };
        if let Some(message) = bad_name(&self.name) {
            return fault("name", message);
        }
        let local: Vec<&str> = team.local().map(|agent| agent.name.as_str()).collect();
        if !local.contains(&self.entry.as_str()) {
            return fault("entry", unknown_agent(&self.entry, &local));
        }
        if !self.listen.address.ip().is_loopback() {
            if !self.listen.public {
                let message = "this address can be reached from other machines: say public = true if that is meant, or \
                               use 127.0.0.1";
                return fault("listen/address", message.to_owned());
            }
            if self.tls.is_none() {
                let message = "without TLS, nothing but loopback is served: add [tls], or use 127.0.0.1 behind something \
                               that ends TLS";
                return fault("listen/address", message.to_owned());
            }
        }
        if let Some(tls) = &self.tls
            && tls.client == ClientCertificate::Required
            && tls.client_ca.is_none()
        {
            return fault("tls/client", "who signs the certificates of clients? add client_ca".to_owned());
        }
        for (key, value) in [
            ("learner/horizon", self.learner.horizon),
            ("time/deadline_ms", self.time.deadline_ms),
            ("time/outcome_after", self.time.outcome_after),
            ("time/poll_ms", self.time.poll_ms),
            ("limits/open_max", self.limits.open_max as u64),
            ("limits/body_bytes_max", self.limits.body_bytes_max as u64),
            ("ledger/snapshot_entries", self.ledger.snapshot_entries),
        ] {
            if value == 0 {
                return fault(key, "it must be 1 or more".to_owned());
            }
        }
        if self.time.remember < self.time.outcome_after {
            let message = "an outcome is waited for longer than its task is remembered: remember must be as long at least";
            return fault("time/remember", message.to_owned());
        }
        let mut shown = BTreeMap::new();
        for (name, peer) in &self.peers {
            self.check_peer(name, peer, team)?;
            let shows = peer.token.as_ref().or(peer.certificate.as_ref());
            if let Some(other) = shows.and_then(|shows| shown.insert(shows, name)) {
                let what = format!("{other:?} shows the same: by what are the two told apart?");
                return Err((vec!["peers".to_owned(), name.clone()], what));
            }
        }
        Ok(())
    }

    /// Whether every organisation is known whose agents the team names.
    pub(super) fn knows_all(&self, team: &TeamSpec) -> Result<(), String> {
        let mut remote = team.agents.iter().filter_map(|agent| Some((&agent.name, agent.remote()?.0)));
        match remote.find(|(_, peer)| !self.peers.contains_key(*peer)) {
            None => Ok(()),
            Some((agent, peer)) => Err(format!(
                "agent {agent:?} of the team is of {peer:?}, which is no peer: relevo join makes it known"
            )),
        }
    }

    fn check_peer(&self, name: &str, peer: &PeerSection, team: &TeamSpec) -> Result<(), Fault> {
        let fault = |key: &str, message: String| {
            let place = ["peers", name, key].into_iter().filter(|part| !part.is_empty());
            Err((place.map(str::to_owned).collect::<Vec<_>>(), message))
        };
        if let Some(message) = bad_name(name) {
            return fault("", message);
        }
        if name == "operator" || name == self.name {
            return fault("", format!("{name:?} is the name of somebody else: give the peer another"));
        }
        if !(peer.url.starts_with("http://") || peer.url.starts_with("https://")) {
            return fault("url", "a url begins with http:// or https://".to_owned());
        }
        if let Some(token) = &peer.token
            && token.parse::<TokenHash>().is_err()
        {
            let message =
                "this is not the hash of a token: relevo join makes one, blake3: and 64 hexadecimal digits";
            return fault("token", message.to_owned());
        }
        if let Some(certificate) = &peer.certificate {
            if certificate.parse::<Certificate>().is_err() {
                return fault("certificate", "write sha256: and 64 hexadecimal digits".to_owned());
            }
            if self.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
                return fault(
                    "certificate",
                    "clients are asked for none: add [tls] with client_ca".to_owned(),
                );
            }
        }
        let local: Vec<&str> = team.local().map(|agent| agent.name.as_str()).collect();
        if let Some(other) = peer.may_hand_to.iter().find(|agent| !local.contains(&agent.as_str())) {
            return fault("may_hand_to", unknown_agent(other, &local));
        }
        for (key, value) in [("rate", peer.rate), ("burst", peer.burst)] {
            if !(value.is_finite() && value >= 1.0) {
                return fault(key, "it must be a number, 1 or more".to_owned());
            }
        }
        Ok(())
    }
}

fn bad_name(name: &str) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let is_good = !name.is_empty() && name.len() <= 64 && name.bytes().all(allowed);
    (!is_good).then(|| "a name has 1 to 64 characters out of a-z 0-9 - _".to_owned())
}

fn unknown_agent(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("no agent of this node is called {name:?}; did you mean {near:?}?"),
        None => format!("no agent of this node is called {name:?}; there are {}", known.join(", ")),
    }
}
