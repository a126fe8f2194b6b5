//! The server that the page talks to: its files and its work to get, its reports to post.

use std::time::{Duration, Instant};

use serde::Serialize;
use tiny_http::{Header, Method, Request, Response};

use super::browser::Process;
use super::ledger::{Ledger, Report, Summary};
use super::{WebError, WebModule};
use crate::recorded::Recorded;
use crate::replay::Replay;

const PAGE: &str = include_str!("../../web/index.html");
const SCRIPT: &str = include_str!("../../web/replay.js");

/// How often to see whether the browser is still there.
const TICK: Duration = Duration::from_millis(200);

/// What the page gets to do.
#[derive(Serialize)]
struct Work<'a> {
    modules: &'a [WebModule],
    cases: Vec<Case<'a>>,
}

/// A case as the page sees it: without the expected values.
#[derive(Serialize)]
struct Case<'a> {
    name: &'a str,
    replay: &'a Replay,
}

pub(super) struct Server<'a> {
    http: tiny_http::Server,
    port: u16,
    work: String,
    modules: &'a [WebModule],
    cases: &'a [Recorded],
}

impl<'a> Server<'a> {
    /// A server on a free port, which only this machine reaches.
    pub(super) fn new(modules: &'a [WebModule], cases: &'a [Recorded]) -> Result<Self, WebError> {
        let http = tiny_http::Server::http("127.0.0.1:0")
            .map_err(|error| WebError::Serve(error.to_string()))?;
        let address = http.server_addr().to_ip();
        let port = address.ok_or_else(|| WebError::Serve("no port".into()))?.port();
        let given = cases.iter().map(|Recorded { name, replay, .. }| Case { name, replay });
        let work = serde_json::to_string(&Work { modules, cases: given.collect() })?;
        Ok(Self { http, port, work, modules, cases })
    }

    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Serves until the page says that it is done.
    pub(super) fn serve(
        &self,
        process: &mut Process,
        silence: Duration,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Summary, WebError> {
        let mut ledger = Ledger::new(self.modules, self.cases);
        let mut last = "start".to_owned();
        let mut heard = Instant::now();
        loop {
            let request =
                self.http.recv_timeout(TICK).map_err(|error| WebError::Serve(error.to_string()))?;
            let Some(mut request) = request else {
                if let Some((status, stderr)) = process.ended()? {
                    return Err(WebError::Ended { status, last, stderr });
                }
                if heard.elapsed() > silence {
                    return Err(WebError::Silent { silence, last });
                }
                continue;
            };
            heard = Instant::now();
            if *request.method() != Method::Post {
                self.send(request);
                continue;
            }
            let mut text = String::new();
            let body = request.as_reader().read_to_string(&mut text);
            body.map_err(|error| WebError::Serve(error.to_string()))?;
            answer(request, Response::empty(204));
            match serde_json::from_str(&text)? {
                Report::Adapter(adapter) => ledger.set_adapter(adapter),
                Report::Progress { message } => {
                    progress(&message);
                    last = message;
                }
                Report::Compiled { index, messages } => ledger.set_module(index, Some(messages)),
                Report::Skipped { index } => ledger.set_module(index, None),
                Report::Output { index, messages, bytes } => {
                    ledger.set_case(index, Some((messages, bytes)))
                }
                Report::PassedOver { index } => ledger.set_case(index, None),
                Report::Failed { message } => return Err(WebError::Page { last, message }),
                Report::Done { compile_ms, run_ms } => {
                    return Ok(ledger.finish([compile_ms, run_ms]));
                }
            }
        }
    }

    fn send(&self, request: Request) {
        let (kind, text) = match request.url() {
            "/" => ("text/html", PAGE),
            "/replay.js" => ("text/javascript", SCRIPT),
            "/work.json" => ("application/json", self.work.as_str()),
            _ => return answer(request, Response::empty(404)),
        };
        let header = Header::from_bytes("Content-Type", kind);
        let response = Response::from_string(text);
        match header {
            Ok(header) => answer(request, response.with_header(header)),
            Err(()) => answer(request, response),
        }
    }
}

/// A page that has gone away is noticed by its silence.
fn answer<R: std::io::Read>(request: Request, response: Response<R>) {
    drop(request.respond(response));
}
