//! `dynconv info`: what adapters there are.

use std::process::ExitCode;

use clap::Args;
use comfy_table::Table;
use dynconv::device::choose_adapter;
use dynconv::{Caps, Context};
use serde::Serialize;

use crate::adapter::backends;
use crate::{AdapterArgs, JsonArgs};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    driver: &'a str,
    backend: String,
    device_type: String,
    max_storage_binding: u64,
    max_buffer: u64,
    max_storage_buffers: u32,
    max_invocations: u32,
    max_workgroup_memory: u32,
    max_workgroups: u32,
    subgroup_size: [u32; 2],
    timestamps: bool,
    f16: bool,
    subgroups: bool,
    int64: bool,
    missing: Vec<&'static str>,
}

impl<'a> Row<'a> {
    fn new(caps: &'a Caps) -> Self {
        Self {
            name: &caps.name,
            driver: &caps.driver,
            backend: format!("{:?}", caps.backend),
            device_type: format!("{:?}", caps.device_type),
            max_storage_binding: caps.max_storage_binding,
            max_buffer: caps.max_buffer,
            max_storage_buffers: caps.max_storage_buffers,
            max_invocations: caps.max_invocations,
            max_workgroup_memory: caps.max_workgroup_memory,
            max_workgroups: caps.max_workgroups,
            subgroup_size: caps.subgroup_size,
            timestamps: caps.timestamps,
            f16: caps.f16,
            subgroups: caps.subgroups,
            int64: caps.int64,
            missing: caps.missing().iter().map(|missing| missing.name).collect(),
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let json = options.json.open()?;
    let adapters = pollster::block_on(Context::adapters(backends()?));
    let selected = choose_adapter(&adapters, &options.adapter.options()?.adapter);
    let rows: Vec<Row<'_>> = adapters.iter().map(Row::new).collect();
    json.write_json(&serde_json::json!({ "adapters": rows, "selected": selected.as_ref().ok() }))?;

    for (number, row) in rows.iter().enumerate() {
        println!("{number}: {}\n{}\n", row.name, table(row));
    }
    let number = selected?;
    println!("using {number}: {}", adapters[number].name);
    Ok(ExitCode::SUCCESS)
}

fn table(row: &Row<'_>) -> Table {
    let yes_no = |flag: bool| if flag { "yes" } else { "no" }.to_string();
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let [smallest, largest] = row.subgroup_size;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    for (name, value) in [
        ("backend", row.backend.clone()),
        ("kind", row.device_type.clone()),
        ("driver", row.driver.into()),
        ("largest storage binding", mib(row.max_storage_binding)),
        ("largest buffer", mib(row.max_buffer)),
        ("storage buffers a shader", row.max_storage_buffers.to_string()),
        ("invocations a workgroup", row.max_invocations.to_string()),
        ("workgroup memory", format!("{} KiB", row.max_workgroup_memory >> 10)),
        ("workgroups a dimension", row.max_workgroups.to_string()),
        (
            "subgroup size",
            if smallest == largest {
                smallest.to_string()
            } else {
                format!("{smallest} to {largest}")
            },
        ),
        ("timestamps", yes_no(row.timestamps)),
        ("f16 in shaders", yes_no(row.f16)),
        ("subgroup operations", yes_no(row.subgroups)),
        ("64-bit integers in shaders", yes_no(row.int64)),
        (
            "would be faster with",
            if row.missing.is_empty() { "nothing more".into() } else { row.missing.join(", ") },
        ),
    ] {
        table.add_row([name.to_string(), value]);
    }
    table
}
