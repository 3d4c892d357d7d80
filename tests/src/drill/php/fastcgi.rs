//! FastCGI as far as drills need it: one request on a connection of its own. Source: the FastCGI specification 1.0.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail};

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;

/// How long a request may take: longer than any job and the start of a master before it.
const ANSWER: Duration = Duration::from_secs(15);

/// Runs a script on the server at 127.0.0.1 and gives what it wrote.
///
/// # Errors
/// When the answer does not come, or not to its end.
pub(super) fn get(port: u16, script: &str, query: &str) -> Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(ANSWER))?;
    let mut request = Vec::new();
    // Role 1 is the responder's; no flags: the server closes the connection.
    record(&mut request, BEGIN_REQUEST, &[0, 1, 0, 0, 0, 0, 0, 0]);
    let mut params = Vec::new();
    for (name, value) in [("SCRIPT_FILENAME", script), ("REQUEST_METHOD", "GET"), ("QUERY_STRING", query)] {
        params.extend([u8::try_from(name.len())?, u8::try_from(value.len())?]);
        params.extend(name.bytes().chain(value.bytes()));
    }
    record(&mut request, PARAMS, &params);
    record(&mut request, PARAMS, &[]);
    record(&mut request, STDIN, &[]);
    connection.write_all(&request)?;

    let mut written = Vec::new();
    loop {
        let mut header = [0; 8];
        connection.read_exact(&mut header)?;
        let [_version, kind, _, _, high, low, padding, _reserved] = header;
        let mut content = vec![0; usize::from(u16::from_be_bytes([high, low])) + usize::from(padding)];
        connection.read_exact(&mut content)?;
        content.truncate(content.len() - usize::from(padding));
        match kind {
            STDOUT => written.extend(content),
            END_REQUEST => return Ok(String::from_utf8_lossy(&written).into_owned()),
            _ if content.is_empty() => {}
            _ => bail!("record {kind}: {}", String::from_utf8_lossy(&content)),
        }
    }
}

fn record(into: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    into.extend([1, kind, 0, 1, length[0], length[1], 0, 0]);
    into.extend(content);
}
