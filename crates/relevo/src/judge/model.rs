//! Models of the team file as judges: [`super::relative`] asks them by [`Ask`].

use std::time::Duration;

use async_trait::async_trait;

use super::relative::{Answer, Ask, Question};
use crate::{
    agent::Failure,
    model::{ChatRequest, Finish, Message, Model, NamedModel, Schema, Speaker},
};

#[async_trait]
impl Ask for NamedModel {
    async fn ask(&self, question: &Question) -> Answer {
        let attempts = u64::from(self.section.retries) + 1;
        let request = ChatRequest {
            messages: vec![
                Message::new(Speaker::System, &question.system),
                Message::new(Speaker::User, &question.user),
            ],
            schema: Some(Schema { name: "relevo_verdict".into(), schema: question.schema.clone() }),
            temperature: self.section.temperature,
            max_tokens: self.section.max_tokens,
            seed: None,
            // Every attempt, and as long again for the waits between them.
            timeout: Duration::from_millis(self.section.timeout_ms.saturating_mul(2 * attempts)),
        };
        match self.model.chat(&request, None).await {
            Err(failure) => Answer { text: Err(failure), tokens: 0, money: 0.0 },
            Ok(reply) => Answer {
                tokens: reply.usage.input + reply.usage.output,
                money: self.section.price.of(reply.usage),
                text: match reply.finish {
                    Finish::Stopped => Ok(reply.text),
                    other => Err(Failure::Garbage(format!("the verdict did not end of itself: {other:?}"))),
                },
            },
        }
    }
}
