//! A collector of spans by OTLP, that a test starts.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use serde_json::{Value as Json, json};

/// A collector of its own, at a free port.
pub(crate) struct Collector {
    address: SocketAddr,
    /// Headers and bodies of all requests.
    pub(crate) got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Collector {
    /// One that answers each request with this status.
    pub(crate) fn start(status: StatusCode) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>> = Arc::default();
        let kept = got.clone();
        thread::spawn(move || {
            let take = async move |headers: HeaderMap, body: Bytes| {
                kept.lock().unwrap().push((headers, body));
                (status, ExportTraceServiceResponse::default().encode_to_vec())
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, Router::new().route("/v1/traces", post(take))).await.unwrap();
            });
        });
        Collector { address, got }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let decoded = |(_, body): &(HeaderMap, Bytes)| ExportTraceServiceRequest::decode(&body[..]).unwrap();
        self.got.lock().unwrap().iter().map(decoded).collect()
    }

    /// Every span it was sent.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let of_resource = self.requests().into_iter().flat_map(|request| request.resource_spans);
        of_resource.flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
    }
}

/// Attributes as JSON.
pub(crate) fn attributes(of: &[KeyValue]) -> BTreeMap<&str, Json> {
    fn plain(value: &AnyValue) -> Json {
        match value.value.as_ref().unwrap() {
            Value::StringValue(text) => json!(text),
            Value::BoolValue(is) => json!(is),
            Value::IntValue(n) => json!(n),
            Value::DoubleValue(x) => json!(x),
            Value::ArrayValue(all) => all.values.iter().map(plain).collect(),
            other => panic!("{other:?}"),
        }
    }
    of.iter().map(|pair| (pair.key.as_str(), plain(pair.value.as_ref().unwrap()))).collect()
}
