//! nginx as a plain proxy: the yardstick.
//!
//! One worker, kept-alive connections to the upstream, no access log, streams unbuffered, bodies
//! of prompts in memory: the fastest that nginx does this job.
//! Invariant: everything that it writes is in its scratch folder.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::Process;
use crate::target::{Kind, Target};

/// Starts it in front of `upstream`.
///
/// # Errors
/// When it is not installed or does not start.
pub(crate) fn start(upstream: SocketAddr, scratch: &Path) -> Result<(Process, Target)> {
    let folder = scratch.join("nginx");
    fs::create_dir(&folder).context("failed to create nginx's folder")?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("failed to find a free port")?;
    let address = listener.local_addr().context("failed to read the port")?;
    drop(listener);
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration(address, upstream)).context("failed to configure nginx")?;
    let mut command = Command::new(program());
    command.arg("-p").arg(&folder).arg("-c").arg(&file).args(["-e", "error.log"]);
    let mut process = Process::start(&mut command, &folder.join("said"))
        .context("install nginx, or leave it out with --only")?;
    for _ in 0..100 {
        if std::net::TcpStream::connect(address).is_ok() {
            let mut target = Target::new(Kind::Nginx, address, "/v1", "unused");
            target.stream_prefix.insert_str(0, "/streamed");
            target.process = Some(process.id());
            return Ok((process, target));
        }
        if !process.runs() {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    bail!("nginx does not start: {}", fs::read_to_string(folder.join("said")).unwrap_or_default())
}

/// Debian keeps it where a plain user's PATH does not look.
pub(crate) fn program() -> &'static str {
    if Path::new("/usr/sbin/nginx").is_file() { "/usr/sbin/nginx" } else { "nginx" }
}

fn configuration(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_body_buffer_size 512k;
  client_max_body_size 64m;
  keepalive_requests 1000000;
  tcp_nodelay on;
  upstream provider {{ server {upstream}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen {address} backlog=1024;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    location / {{ proxy_pass http://provider; }}
    location /streamed/ {{ proxy_pass http://provider/; proxy_buffering off; }}
  }}
}}
"
    )
}
