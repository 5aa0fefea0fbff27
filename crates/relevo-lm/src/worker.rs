//! The thread that continues the requests of all clients together.

use std::{collections::HashMap, thread::JoinHandle};

use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::{
    chat::Speech,
    generate::{Batch, Continue, Finish},
    model::{Model, Request},
};

/// A request, and who hears what is said.
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) tell: mpsc::UnboundedSender<Event>,
}

/// What a client hears. There are as many of them as a completion has tokens, at most.
pub(crate) enum Event {
    /// One token more, and the text that is now certain.
    Token(String),
    /// That was all.
    End(Finish),
}

/// It ends when all senders of jobs are gone.
pub(crate) struct Worker(Option<JoinHandle<()>>);

impl Worker {
    /// Continue at most `together` requests at a time, while at most `queue` wait.
    pub(crate) fn start(model: &'static Model, together: usize, queue: usize) -> (Self, mpsc::Sender<Job>) {
        let (jobs, waiting) = mpsc::channel(queue.max(1));
        (Worker(Some(std::thread::spawn(move || work(model, together.max(1), waiting)))), jobs)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.take().map(JoinHandle::join);
    }
}

fn work(model: &Model, together: usize, mut waiting: mpsc::Receiver<Job>) {
    let mut batch = Batch::new(model.network());
    let mut going: HashMap<usize, (Speech, mpsc::UnboundedSender<Event>)> = HashMap::new();
    loop {
        while going.len() < together {
            let job = match waiting.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Empty) if going.is_empty() => match waiting.blocking_recv() {
                    Some(job) => job,
                    None => return,
                },
                Err(TryRecvError::Disconnected) if going.is_empty() => return,
                Err(_) => break,
            };
            // A client that gave up while it waited is not served.
            if !job.tell.is_closed() {
                let number = batch.join(job.request.start());
                going.insert(number, (Speech::new(&job.request.prompt), job.tell));
            }
        }
        batch.step(&mut |number, token, finish| {
            let Some((speech, tell)) = going.get_mut(&number) else { return Continue::No };
            let mut text = speech.push(token);
            if finish.is_some() {
                text += &speech.finish();
            }
            let heard = tell.send(Event::Token(text)).is_ok();
            if let Some(finish) = finish {
                let _ = tell.send(Event::End(finish));
            }
            if finish.is_some() || !heard {
                going.remove(&number);
            }
            if heard { Continue::Yes } else { Continue::No }
        });
    }
}
