use a2a::{
    AgentCapabilities, AgentCard, AgentInterface, AgentSkill, HttpAuthSecurityScheme, SecurityScheme,
    TRANSPORT_PROTOCOL_HTTP_JSON, TRANSPORT_PROTOCOL_JSONRPC,
};

use crate::server::AgentDoor;

/// The card of an agent that is found at `url`.
pub(crate) fn card(agent: &AgentDoor, url: &str) -> AgentCard {
    let modes = || {
        vec!["application/octet-stream".to_owned(), "text/plain".to_owned(), "application/json".to_owned()]
    };
    AgentCard {
        name: agent.name.clone(),
        description: agent.description.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        supported_interfaces: [TRANSPORT_PROTOCOL_JSONRPC, TRANSPORT_PROTOCOL_HTTP_JSON]
            .map(|binding| AgentInterface::new(url, binding))
            .into(),
        capabilities: AgentCapabilities {
            streaming: Some(true),
            push_notifications: Some(true),
            extensions: agent.terms.map(|terms| vec![terms.declaration()]),
            extended_agent_card: Some(true),
        },
        default_input_modes: modes(),
        default_output_modes: modes(),
        skills: vec![AgentSkill {
            id: agent.name.clone(),
            name: agent.name.clone(),
            description: agent.description.clone(),
            tags: agent.tags.clone(),
            examples: None,
            input_modes: None,
            output_modes: None,
            security_requirements: None,
        }],
        provider: None,
        documentation_url: None,
        icon_url: None,
        security_schemes: Some(
            [(
                "bearer".to_owned(),
                SecurityScheme::HttpAuth(HttpAuthSecurityScheme {
                    scheme: "Bearer".to_owned(),
                    description: None,
                    bearer_format: None,
                }),
            )]
            .into(),
        ),
        security_requirements: Some(vec![[("bearer".to_owned(), Vec::new())].into()]),
        signatures: None,
    }
}
