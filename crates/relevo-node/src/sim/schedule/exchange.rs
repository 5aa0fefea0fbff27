//! Packets on their way: each is carried once, or lost, or twice, and comes to one report.

use super::{Event, Exchange, Schedule, Sender};
use crate::{
    door::Request,
    ids::PeerId,
    machine::Input,
    sim::{
        faults::Kind,
        host::Waiting,
        network::{self, Asked, Letter, Reply},
        sabotage::Sabotage,
    },
    transport::{Load, Packet, Report},
    wire::{Progress, Standing},
};

/// How long a packet may take, in milliseconds.
const REPLY_MS_MAX: u64 = 5_000;

impl Schedule<'_, '_> {
    pub(super) fn carry(&mut self, sender: Sender, to: usize, packet: Packet) {
        let letter = network::write(&packet.load);
        let (from, place) = match sender {
            Sender::Host(host, _) => (self.hosts[host].name.clone(), Some(host)),
            Sender::Origin(_) => ("operator".to_owned(), None),
        };
        self.say(|| format!("{from} -> org{to} {}: {letter:?}", packet.agent));
        if let Letter::Send(text) = &letter {
            self.note(&[b"send", &[to as u8], text.as_bytes()]);
        }
        let exchange = self.next;
        let agent = packet.agent.clone();
        self.exchanges.insert(exchange, Exchange { sender, packet });
        for _ in 0..1 + usize::from(self.faults.strikes(Kind::Duplicate)) {
            let is_cut =
                place.is_some_and(|from| self.cut.get(&(from, to)).is_some_and(|until| *until > self.now));
            if is_cut || self.faults.strikes(Kind::Loss) {
                continue;
            }
            let at = self.now + 1 + self.faults.time(40, 90_000, Kind::Delay);
            let (from, agent, letter) = (from.clone(), agent.clone(), letter.clone());
            self.at(at, Event::Arrives { exchange, to, from, agent, letter });
        }
        // Taken back by the report, if one comes before.
        self.next += 1;
        self.at(self.now + REPLY_MS_MAX, Event::Comes(exchange, Reply::Nobody));
    }

    pub(super) fn arrives(&mut self, exchange: u64, to: usize, from: &str, agent: &str, letter: Letter) {
        let terms = self.world.terms(to);
        let host = &mut self.hosts[to];
        if host.machine.is_none() {
            return self.answer(to, exchange, Reply::Nobody);
        }
        let Some(peer) = host.peers.iter().position(|known| known == from).map(|n| PeerId(n as u32)) else {
            return self.broken.push(format!("{} does not know {from}", host.name));
        };
        let request = match network::read(agent, &letter, host.time(self.now)) {
            Ok(Asked::Card) => return self.answer(to, exchange, Reply::Card(terms)),
            Ok(Asked::Look(task)) => {
                let row = host.machine.as_ref().map(|machine| machine.store().reader());
                let row = row.and_then(|reader| reader.ok()?.task(peer, task?).ok()?);
                let reply = host.shown.task(row);
                return self.answer(to, exchange, reply);
            }
            Ok(Asked::Request(request)) => request,
            Err(error) => {
                self.say(|| format!("org{to} refuses: {error}"));
                let reply = match error.is_transient() {
                    true => Reply::Later,
                    false => Reply::Refused(error.word.to_owned()),
                };
                return self.answer(to, exchange, reply);
            }
        };
        let outcome = match &request {
            Request::Outcome(note) => Some(note.handoff),
            _ => None,
        };
        let ticket = host.next_ticket;
        host.next_ticket += 1;
        host.tickets.insert(ticket, Waiting { exchange, letter, outcome });
        host.inbox.push(Input::Asked { ticket, peer, request });
        self.wake(to);
    }

    /// A reply sets out.
    pub(super) fn answer(&mut self, from: usize, exchange: u64, reply: Reply) {
        let Some(Exchange { sender, packet }) = self.exchanges.get(&exchange) else { return };
        let (wire, place) = (
            packet.wire,
            match sender {
                Sender::Host(host, _) => Some(*host),
                Sender::Origin(_) => None,
            },
        );
        let is_cut = place.is_some_and(|to| self.cut.get(&(from, to)).is_some_and(|until| *until > self.now));
        if is_cut || self.faults.strikes(Kind::Loss) {
            return;
        }
        let mut reply = reply;
        if place.is_some() && self.faults.strikes(Kind::Liar) {
            self.lied.push(wire);
            reply = network::lie(reply, &wire, self.faults.below(4));
        }
        let at = self.now + 1 + self.faults.time(40, 90_000, Kind::Delay);
        self.at(at, Event::Comes(exchange, reply));
    }

    pub(super) fn comes(&mut self, exchange: u64, reply: Reply) {
        let Some(Exchange { sender, packet }) = self.exchanges.remove(&exchange) else { return };
        if let Reply::Response(text) | Reply::Task(text) = &reply {
            self.note(&[b"reply", text.as_bytes()]);
        }
        let mut report = network::read_reply(&packet.load, &packet.wire, reply);
        self.say(|| format!("{sender:?} is told of {}: {report:?}", packet.wire));
        match sender {
            Sender::Host(number, life) => {
                let host = &mut self.hosts[number];
                if host.life != life {
                    return;
                }
                let (Load::Handoff { .. }, wire) = (&packet.load, packet.wire) else {
                    host.inbox.push(Input::Reported { wire: packet.wire, report });
                    return self.wake(number);
                };
                if host.saboteur.what == Some(Sabotage::ImputesZero)
                    && matches!(report, Report::Unreachable(_))
                {
                    let value = Some(Ok(0.0));
                    report = Report::Standing(Standing { task: None, progress: Progress::Working, value });
                } else if let Report::Standing(_) = report {
                    let to = host.peers[packet.peer.0 as usize].clone();
                    let from = host.name.clone();
                    if let Some(to) = self.hosts.iter().position(|host| host.name == to) {
                        self.acknowledged.insert(wire, (from, to));
                    }
                }
                self.hosts[number].inbox.push(Input::Reported { wire, report });
                self.wake(number);
            }
            Sender::Origin(number) => {
                match self.origins[number].reported(&packet.load, report, &mut self.faults) {
                    Ok(wait) => self.at(self.now + wait, Event::Origin(number)),
                    Err(broken) => self.broken.push(format!("task {number}: {broken}")),
                }
            }
        }
    }
}
