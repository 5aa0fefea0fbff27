use a2a::{JsonRpcResponse, error_code, errordetails::ERROR_INFO_TYPE};
use a2a_pb::protojson_conv::{self, ProtoJsonPayload};
use reqwest::{Response, StatusCode, header};
use serde_json::Value;

use crate::{door, transport::Report, wire::word};

/// Longer times are no advice.
const RETRY_MS_MAX: u64 = 3_600_000;

/// An HTTP reply, read to its end.
pub(super) struct Reply {
    status: StatusCode,
    retry_ms: Option<u64>,
    body: Vec<u8>,
}

impl Reply {
    /// Read a reply of at most so many bytes.
    pub(super) async fn read(mut response: Response, bytes_max: usize) -> Result<Self, Report> {
        if response.content_length().is_some_and(|bytes| bytes > bytes_max as u64) {
            return Err(garbage("too-long"));
        }
        let after =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_ms = after.map(|seconds: u64| seconds.saturating_mul(1_000).min(RETRY_MS_MAX));
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > bytes_max {
                return Err(garbage("too-long"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, retry_ms, body })
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// What it holds, by its status; a peer that refuses may say why in its body.
    pub(super) fn value(&self) -> Result<Value, Report> {
        let value = serde_json::from_slice(&self.body);
        match self.status {
            status if status.is_success() => value.map_err(|_| garbage("not-json")),
            status if status.is_redirection() => Err(garbage("redirect")),
            status => {
                let error = value.as_ref().ok().and_then(|value: &Value| value.get("error"));
                let details = error.and_then(|error| error.get("details"));
                Err(self.refused(status, details))
            }
        }
    }

    fn refused(&self, status: StatusCode, details: Option<&Value>) -> Report {
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Report::Later(self.retry_ms.or_else(|| retry_delay_ms(details)))
            }
            StatusCode::NOT_IMPLEMENTED => refused("not-supported"),
            status if status.is_server_error() => {
                Report::Later(self.retry_ms.or_else(|| retry_delay_ms(details)))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => refused("not-known-there"),
            StatusCode::NOT_FOUND => refused(told_word(details).unwrap_or("not-found")),
            StatusCode::PAYLOAD_TOO_LARGE => refused("too-long-for-it"),
            _ => refused(told_word(details).unwrap_or("refused")),
        }
    }
}

/// The result of a JSON-RPC response.
pub(super) fn result(value: Value, id: &str) -> Result<Value, Report> {
    let response: JsonRpcResponse = serde_json::from_value(value).map_err(|_| garbage("not-json-rpc"))?;
    if response.jsonrpc != "2.0" || response.id != a2a::JsonRpcId::from(id) {
        return Err(garbage("not-json-rpc"));
    }
    match (response.result, response.error) {
        (Some(result), None) => Ok(result),
        (None, Some(error)) => Err(match error.code {
            error_code::INTERNAL_ERROR => Report::Later(retry_delay_ms(error.data.as_ref())),
            code => refused(told_word(error.data.as_ref()).unwrap_or(match code {
                error_code::TASK_NOT_FOUND => "not-found",
                error_code::VERSION_NOT_SUPPORTED => "version",
                error_code::METHOD_NOT_FOUND | error_code::UNSUPPORTED_OPERATION => "not-supported",
                _ => "refused",
            })),
        }),
        _ => Err(garbage("not-json-rpc")),
    }
}

/// What a value means in A2A.
pub(super) fn payload<T: ProtoJsonPayload>(value: Value) -> Result<T, Report> {
    protojson_conv::from_value(value).map_err(|_| garbage("not-a2a"))
}

pub(super) fn garbage(word: &str) -> Report {
    Report::Garbage(word.to_owned())
}

pub(super) fn refused(word: &str) -> Report {
    Report::Refused(word.to_owned())
}

/// What failed on the way, without any address.
pub(super) fn unreachable(error: &reqwest::Error) -> Report {
    if error.is_timeout() {
        return Report::Unreachable("too-slow".to_owned());
    }
    let word = if error.is_connect() { "no-connection" } else { "cut-short" };
    Report::Unreachable(word.to_owned())
}

/// The word by which the peer says why; one of those that are known, so that what is counted stays bounded.
fn told_word(details: Option<&Value>) -> Option<&'static str> {
    let infos = details?.as_array()?.iter().filter(|detail| detail["@type"] == ERROR_INFO_TYPE);
    let told = infos.filter_map(|info| info["metadata"]["word"].as_str()).next()?;
    word::ALL.into_iter().chain(door::WORDS).find(|known| *known == told)
}

fn retry_delay_ms(details: Option<&Value>) -> Option<u64> {
    let seconds =
        details?.as_array()?.iter().find_map(|detail| detail["retryDelay"].as_str())?.strip_suffix('s')?;
    let ms = seconds.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0)? * 1_000.0;
    Some((ms as u64).min(RETRY_MS_MAX))
}
