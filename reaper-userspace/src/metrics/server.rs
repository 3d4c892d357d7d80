//! The HTTP server that Prometheus asks: `GET /metrics`, nothing else.
//!
//! It runs beside the agent's loop on the same thread and never in it: who reads slowly, sends half a request or connects
//! and says nothing holds one of a few places for a few seconds. The page itself is made by the loop, which owns everything that is
//! told in it. Deliberately not in it: TLS and passwords (a proxy has them), and connections that stay open.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Format;

/// So many are answered at a time; others wait in the kernel's backlog.
const CONNECTIONS: usize = 16;

/// How long a request may take to be told.
const REQUEST: Duration = Duration::from_secs(2);

/// How long a connection may last.
const WHOLE: Duration = Duration::from_secs(5);

/// Most bytes of a request's head: the least that hyper takes.
const HEAD: usize = 8 << 10;

/// How long nobody is let in after that failed: the agent is out of descriptors, and that does not end at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Somebody wants the page.
#[derive(Debug)]
pub struct Ask {
    /// In this format.
    pub format: Format,
    reply: oneshot::Sender<String>,
}

impl Ask {
    /// Gives it.
    pub fn answer(self, page: String) {
        // Who has gone meanwhile does not want it.
        let _gone = self.reply.send(page);
    }
}

/// A bound listener and whoever is connected. All of them go with it.
#[derive(Debug)]
pub struct Server {
    asks: mpsc::Receiver<Ask>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on `address`. Needs a running tokio runtime.
    ///
    /// # Errors
    /// The address is taken, is none of this host's, or may not be bound.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let bound = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let listener = bound.with_context(|| {
            format!(
                "cannot serve metrics on {address}; give [agent] metrics an address that is free, or leave it out"
            )
        })?;
        let (sender, asks) = mpsc::channel(CONNECTIONS);
        Ok(Self { asks, task: tokio::spawn(serve(listener, sender)) })
    }

    /// Waits until somebody wants the page.
    pub async fn asked(&mut self) -> Ask {
        match self.asks.recv().await {
            Some(ask) => ask,
            // The task ends only with this.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, asks: mpsc::Sender<Ask>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS || connections.try_join_next().is_some() {
            if connections.len() >= CONNECTIONS {
                connections.join_next().await;
            }
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, asks.clone()));
            }
            Err(e) => {
                tracing::warn!("nobody can connect to the metrics: {e}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, asks: mpsc::Sender<Ask>) {
    let service = service_fn(|request| {
        let asks = asks.clone();
        async move { Ok::<_, Infallible>(answer(&request, &asks).await) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(WHOLE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!("a connection to the metrics: {e}"),
        Err(_) => tracing::debug!("a connection to the metrics took longer than {WHOLE:?}"),
    }
}

async fn answer(request: &Request<Incoming>, asks: &mpsc::Sender<Ask>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET it\n");
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let wants = request.headers().get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let open = wants.into_iter().any(|accept| accept.contains("application/openmetrics-text"));
    let format = if open { Format::OpenMetrics } else { Format::Prometheus };
    let (reply, page) = oneshot::channel();
    let asked = asks.send(Ask { format, reply }).await;
    match (asked, page.await) {
        (Ok(()), Ok(page)) => typed(StatusCode::OK, format.content_type(), page),
        _ => plain(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n"),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text.to_owned())
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
