//! A stand-in for Envoy: HTTP/1.1 in, ext_proc to a processor, and to the backend what the answers make of the request,
//! with Envoy's own rules: a mode replaces the one before as a whole, a stream that ends well needs no more answers, and
//! only a decided request has a route.
use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderMap as EnvoyHeaders, HeaderValue as EnvoyHeader},
        extensions::filters::http::ext_proc::v3::{
            ProcessingMode,
            processing_mode::{BodySendMode, HeaderSendMode},
        },
        service::ext_proc::v3::{
            CommonResponse, HeaderMutation, HttpBody, HttpHeaders, ImmediateResponse, ProcessingRequest,
            ProcessingResponse, body_mutation::Mutation, external_processor_client::ExternalProcessorClient,
            processing_request::Request as Message, processing_response::Response as Kind,
        },
    },
    google::protobuf::{Struct, Value, value},
};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::mpsc,
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Status, Streaming,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

pub(crate) type Lines = Vec<(String, Vec<u8>)>;

/// A client of a processor, as Envoy is one.
#[derive(Debug, Clone)]
pub(crate) struct Envoy {
    channel: Channel,
    /// To backends that are host names.
    tls: Option<Arc<ClientConfig>>,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Call {
    messages: mpsc::UnboundedSender<ProcessingRequest>,
    answers: Streaming<ProcessingResponse>,
}

impl Call {
    pub(crate) fn send(&self, message: ProcessingRequest) {
        self.messages.send(message).unwrap();
    }

    /// The next answer; `None`: the stream ended well.
    pub(crate) async fn answer(&mut self) -> Result<Option<ProcessingResponse>, Status> {
        let answer = tokio::time::timeout(std::time::Duration::from_secs(20), self.answers.message());
        answer.await.expect("an answer within the deadline")
    }

    /// Sends, and waits for the answer, which must be one.
    pub(crate) async fn exchange(&mut self, message: ProcessingRequest) -> ProcessingResponse {
        self.send(message);
        self.answer().await.unwrap().expect("an answer before the end of the stream")
    }

    /// The stream must end well, without another answer.
    pub(crate) async fn ends(mut self) {
        let more = self.answer().await.unwrap();
        assert_eq!(more, None);
    }
}

impl Envoy {
    pub(crate) async fn connect(socket: &Path, remote_root: Option<&Path>) -> Self {
        let path: PathBuf = socket.to_owned();
        let connect = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let channel =
            Endpoint::from_static("http://processor").connect_with_connector(connect).await.unwrap();
        let tls = remote_root.map(|path| {
            let mut roots = RootCertStore::empty();
            for root in agentic_gateway::tls::certificates(&std::fs::read(path).unwrap()).unwrap() {
                roots.add(root).unwrap();
            }
            let config = ClientConfig::builder_with_provider(Arc::clone(agentic_gateway::tls::provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            Arc::new(config)
        });
        Self { channel, tls }
    }

    /// Opens a stream with this initial metadata.
    pub(crate) async fn call(&self, metadata: &[(&'static str, String)]) -> Result<Call, Status> {
        let (messages, outgoing) = mpsc::unbounded_channel();
        let mut request = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
        for (key, value) in metadata {
            request.metadata_mut().append(*key, AsciiMetadataValue::try_from(value.as_str()).unwrap());
        }
        let mut client = ExternalProcessorClient::new(self.channel.clone())
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(usize::MAX);
        let answers = client.process(request).await?.into_inner();
        Ok(Call { messages, answers })
    }

    /// Serves HTTP/1.1 on one connection.
    pub(crate) async fn serve(
        self,
        io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        metadata: Vec<(&'static str, String)>,
    ) {
        let service = service_fn(move |request: Request<Incoming>| {
            let (envoy, metadata) = (self.clone(), metadata.clone());
            async move { Ok::<_, Infallible>(envoy.proxy(request, &metadata).await) }
        });
        // A connection that breaks shows in what the client gets.
        let _ended = http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
    }

    async fn proxy(
        &self,
        request: Request<Incoming>,
        metadata: &[(&'static str, String)],
    ) -> Response<Full<Bytes>> {
        match self.decided(request, metadata).await {
            Ok(response) => response,
            // What `failure_mode_allow: false` makes of it.
            Err(status) => {
                let mut response = Response::new(Full::from(format!("ext_proc: {status}")));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }

    async fn decided(
        &self,
        request: Request<Incoming>,
        metadata: &[(&'static str, String)],
    ) -> Result<Response<Full<Bytes>>, Status> {
        let (parts, body) = request.into_parts();
        let mut lines = request_lines(&parts);
        let has_body = !body.is_end_stream();
        let mut call = self.call(metadata).await?;
        call.send(head(Message::RequestHeaders, &lines, !has_body, &[]));
        let mut collected = None;
        let mut found = Struct::default();
        // The configuration's own mode.
        let mut mode = mode(BodySendMode::Buffered);
        if let Some(mut answer) = call.answer().await? {
            if let Some(changed) = answer.mode_override.take() {
                mode = changed;
            }
            found = answer.dynamic_metadata.take().unwrap_or_default();
            match answer.response.unwrap() {
                Kind::ImmediateResponse(response) => return Ok(immediate(response)),
                Kind::RequestHeaders(answer) => apply(&mut lines, &answer.response.unwrap()),
                other => panic!("not an answer to a request's head: {other:?}"),
            }
        }
        if has_body && mode.request_body_mode == i32::from(BodySendMode::Buffered) {
            assert_eq!(found, Struct::default(), "metadata before the body was decided on");
            let body = body.collect().await.map_err(|error| Status::cancelled(error.to_string()))?.to_bytes();
            call.send(chunk(Message::RequestBody, &body, true));
            collected = Some(body);
            if let Some(mut answer) = call.answer().await? {
                found = answer.dynamic_metadata.take().unwrap_or_default();
                match answer.response.unwrap() {
                    Kind::ImmediateResponse(response) => return Ok(immediate(response)),
                    Kind::RequestBody(answer) => apply(&mut lines, &answer.response.unwrap()),
                    other => panic!("not an answer to a request's body: {other:?}"),
                }
            }
        } else {
            collected = match body.collect().await {
                Ok(body) if has_body => Some(body.to_bytes()),
                _ => collected,
            };
        }
        let own = fields(&found, "agentic");
        if own("decided").as_deref() != Some("1") {
            let mut response = Response::new(Full::from("undecided"));
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
            return Ok(response);
        }
        // The first of them: it is there.
        let endpoints = own("endpoint").unwrap();
        let endpoint: SocketAddr = endpoints.split(',').next().unwrap().parse().unwrap();
        let (mut parts, mut body) = self.upstream(lines, collected, endpoint).await;
        if mode.response_header_mode == i32::from(HeaderSendMode::Send) {
            let ends = body.is_empty();
            let lines = response_lines(&parts);
            // A stream that has ended is sent nothing.
            let _gone = call.messages.send(head(
                Message::ResponseHeaders,
                &lines,
                ends,
                &[("upstream.address", endpoint.to_string())],
            ));
            if let Some(answer) = call.answer().await? {
                match answer.response.unwrap() {
                    Kind::ImmediateResponse(response) => return Ok(immediate(response)),
                    Kind::ResponseHeaders(changes) => {
                        let mut lines = lines;
                        apply(&mut lines, &changes.response.unwrap());
                        parts = response_parts(lines);
                    }
                    other => panic!("not an answer to a response's head: {other:?}"),
                }
                let wants = answer.mode_override.map_or(0, |mode| mode.response_body_mode);
                if !ends && wants != i32::from(BodySendMode::None) {
                    let answer = call.exchange(chunk(Message::ResponseBody, &body, true)).await;
                    body = replaced(answer).unwrap_or(body);
                }
            }
        }
        if let Some(session) = own("session")
            && let Some(given) = parts.headers.get_mut("mcp-session-id")
        {
            *given = session.parse().unwrap();
        }
        parts.headers.remove("content-length");
        Ok(Response::from_parts(parts, Full::from(body)))
    }

    async fn upstream(
        &self,
        lines: Lines,
        body: Option<Bytes>,
        endpoint: SocketAddr,
    ) -> (http::response::Parts, Bytes) {
        let mut request = Request::new(Full::from(body.unwrap_or_default()));
        let mut cluster = None;
        for (name, value) in lines {
            match name.as_str() {
                ":method" => *request.method_mut() = value.as_slice().try_into().unwrap(),
                ":path" => *request.uri_mut() = value.as_slice().try_into().unwrap(),
                ":authority" => {
                    request.headers_mut().insert("host", value.as_slice().try_into().unwrap());
                }
                ":scheme" => {}
                "x-agentic-cluster" => cluster = Some(String::from_utf8(value).unwrap()),
                name => {
                    let name: http::HeaderName = name.parse().unwrap();
                    request.headers_mut().append(name, value.as_slice().try_into().unwrap());
                }
            }
        }
        let cluster = cluster.expect("a decided request names its cluster");
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let stream = TcpStream::connect(endpoint).await.unwrap();
        let response = if cluster.contains("remote") {
            let name = ServerName::try_from(host).unwrap();
            let tls = TlsConnector::from(Arc::clone(self.tls.as_ref().unwrap()));
            send(request, tls.connect(name, stream).await.unwrap()).await
        } else {
            send(request, stream).await
        };
        let (parts, body) = response.into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    }
}

async fn send(
    request: Request<Full<Bytes>>,
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> Response<Incoming> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

fn mode(request_body: BodySendMode) -> ProcessingMode {
    ProcessingMode {
        request_header_mode: HeaderSendMode::Send.into(),
        response_header_mode: HeaderSendMode::Skip.into(),
        request_body_mode: request_body.into(),
        ..ProcessingMode::default()
    }
}

/// HTTP/1.1's Host is `:authority`; of several, Envoy would join all with a comma.
fn request_lines(parts: &http::request::Parts) -> Lines {
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut lines =
        vec![(":method".to_owned(), parts.method.as_str().into()), (":path".to_owned(), path.into())];
    let hosts: Vec<_> = parts.headers.get_all("host").iter().map(http::HeaderValue::as_bytes).collect();
    if !hosts.is_empty() {
        lines.push((":authority".to_owned(), hosts.join(&b","[..])));
    }
    lines.push((":scheme".to_owned(), b"http".to_vec()));
    let others = parts.headers.iter().filter(|(name, _)| *name != "host");
    lines.extend(others.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())));
    lines
}

fn response_lines(parts: &http::response::Parts) -> Lines {
    let mut lines = vec![(":status".to_owned(), parts.status.as_str().into())];
    lines.extend(
        parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())),
    );
    lines
}

fn response_parts(lines: Lines) -> http::response::Parts {
    let mut response = Response::builder();
    for (name, value) in lines {
        response = match name.as_str() {
            ":status" => response.status(value.as_slice()),
            name => response.header(name, value.as_slice()),
        };
    }
    response.body(()).unwrap().into_parts().0
}

/// A head's message, with attributes.
pub(crate) fn head(
    kind: fn(HttpHeaders) -> Message,
    lines: &[(String, Vec<u8>)],
    end_of_stream: bool,
    attributes: &[(&str, String)],
) -> ProcessingRequest {
    let headers = lines
        .iter()
        .map(|(name, value)| EnvoyHeader {
            key: name.clone(),
            raw_value: value.clone(),
            ..EnvoyHeader::default()
        })
        .collect();
    let fields = attributes
        .iter()
        .map(|(name, text)| {
            ((*name).to_owned(), Value { kind: Some(value::Kind::StringValue(text.clone())) })
        })
        .collect();
    ProcessingRequest {
        request: Some(kind(HttpHeaders {
            headers: Some(EnvoyHeaders { headers }),
            end_of_stream,
            ..HttpHeaders::default()
        })),
        attributes: [("envoy.filters.http.ext_proc".to_owned(), Struct { fields })].into(),
        ..ProcessingRequest::default()
    }
}

/// A body's message.
pub(crate) fn chunk(kind: fn(HttpBody) -> Message, body: &[u8], end_of_stream: bool) -> ProcessingRequest {
    ProcessingRequest {
        request: Some(kind(HttpBody { body: body.to_vec(), end_of_stream, ..HttpBody::default() })),
        ..ProcessingRequest::default()
    }
}

/// What takes the place of a body; `None`: it stays.
pub(crate) fn replaced(answer: ProcessingResponse) -> Option<Bytes> {
    let Some(Kind::ResponseBody(answer)) = answer.response else { panic!("not of a body: {answer:?}") };
    match answer.response.unwrap().body_mutation?.mutation? {
        Mutation::Body(body) => Some(body.into()),
        Mutation::ClearBody(_) => Some(Bytes::new()),
        other @ Mutation::StreamedResponse(_) => panic!("{other:?}"),
    }
}

/// The texts of one namespace of metadata.
pub(crate) fn fields(metadata: &Struct, namespace: &str) -> impl Fn(&str) -> Option<String> {
    let own = match metadata.fields.get(namespace).and_then(|value| value.kind.clone()) {
        Some(value::Kind::StructValue(own)) => own,
        _ => Struct::default(),
    };
    move |key| match own.fields.get(key)?.kind.as_ref()? {
        value::Kind::StringValue(text) => Some(text.clone()),
        other => panic!("{key}: {other:?}"),
    }
}

/// Removes, then sets, as Envoy does.
pub(crate) fn mutate(lines: &mut Lines, mutation: &HeaderMutation) {
    lines.retain(|(name, _)| !mutation.remove_headers.contains(name));
    for option in &mutation.set_headers {
        let header = option.header.clone().unwrap();
        #[expect(deprecated, reason = "what all versions of Envoy know")]
        let appends = option.append.is_some_and(|append| append.value);
        if !appends {
            let had = lines.iter().filter(|(name, _)| *name == header.key).count();
            assert!(had < 2, "versions of Envoy differ in what overwriting {} lines means", header.key);
            lines.retain(|(name, _)| *name != header.key);
        }
        lines.push((header.key, header.raw_value));
    }
}

fn apply(lines: &mut Lines, common: &CommonResponse) {
    if let Some(mutation) = &common.header_mutation {
        mutate(lines, mutation);
    }
}

fn immediate(response: ImmediateResponse) -> Response<Full<Bytes>> {
    let status = u16::try_from(response.status.unwrap().code).unwrap();
    let mut lines = vec![(":status".to_owned(), status.to_string().into_bytes())];
    mutate(&mut lines, &response.headers.unwrap_or_default());
    Response::from_parts(response_parts(lines), Full::from(response.body))
}

/// As `%DOWNSTREAM_PEER_CERT%` writes PEM.
pub(crate) fn escaped(pem: &str) -> String {
    pem.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
