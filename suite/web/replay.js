// Compiles shaders and replays recorded runs on WebGPU. The server tells what to do and judges; see
// suite/src/web.

// Several at a time let the implementation compile in its own threads.
const COMPILED_AT_ONCE = 8;

// Does all the server's work on `gpu`, a navigator.gpu. `agent` says who we are.
export async function replay(gpu, server, agent) {
    const report = (kind, fields) =>
        fetch(`${server}/report`, { method: 'POST', body: JSON.stringify({ kind, ...fields }) });
    try {
        const device = await openDevice(gpu, agent, report);
        const { modules, cases } = await (await fetch(`${server}/work.json`)).json();
        const compiled = new Map(); // by text: modules of cases may be among those compiled already
        const start = performance.now();
        await compileAll(device, modules, compiled, report);
        const middle = performance.now();
        await runAll(device, cases, compiled, report);
        await report('done', { compile_ms: middle - start, run_ms: performance.now() - middle });
    } catch (error) {
        await report('failed', { message: String(error?.stack ?? error) });
    }
}

// A device with the default limits, so that nothing is used that some device does not have.
async function openDevice(gpu, agent, report) {
    if (!gpu) throw new Error('this browser has no WebGPU');
    const adapter = await gpu.requestAdapter();
    if (!adapter) throw new Error('the browser gives no WebGPU adapter');
    const requiredFeatures = ['shader-f16'].filter((feature) => adapter.features.has(feature));
    const device = await adapter.requestDevice({ requiredFeatures });
    const { vendor, architecture, device: name, description, isFallbackAdapter } = adapter.info;
    const is_fallback = isFallbackAdapter ?? false;
    const info = { vendor, architecture, device: name, description, is_fallback };
    await report('adapter', { agent, ...info, f16: requiredFeatures.length > 0 });
    // What no error scope catches must not go unheard. Losing the device ends the work; the other
    // reports say where.
    device.onuncapturederror = ({ error }) =>
        report('failed', { message: `uncaptured: ${error.message}` });
    device.lost.then(({ message }) => report('failed', { message: `device lost: ${message}` }));
    return device;
}

const canRun = (device, sources) =>
    device.features.has('shader-f16') || !sources.some((source) => /^enable f16;/m.test(source));

async function compileAll(device, modules, compiled, report) {
    for (let first = 0; first < modules.length; first += COMPILED_AT_ONCE) {
        await report('progress', { message: `compiling ${modules[first].label}` });
        const batch = modules.slice(first, first + COMPILED_AT_ONCE);
        await Promise.all(batch.map(async (module, place) => {
            const index = first + place;
            if (!canRun(device, [module.source])) {
                await report('skipped', { index });
                return;
            }
            const { messages } = module.has_pipeline
                ? await compile(device, module, compiled)
                : await check(device, module);
            await report('compiled', { index, messages });
        }));
    }
}

// The pipeline of a module, and whatever the compiler had to say.
function compile(device, module, compiled) {
    if (!compiled.has(module.source)) compiled.set(module.source, compileAnew(device, module));
    return compiled.get(module.source);
}

async function compileAnew(device, module) {
    const { shader, messages } = await check(device, module);
    const compute = { module: shader };
    const { label } = module;
    const creation = device.createComputePipelineAsync({ label, layout: 'auto', compute });
    const pipeline = await creation.catch((error) => { messages.push(error.message); });
    return { pipeline, messages };
}

// The shader module, and whatever the front end had to say.
async function check(device, { label, source }) {
    const create = () => device.createShaderModule({ label, code: source });
    const { value: shader, messages } = captured(device, create);
    const info = await shader.getCompilationInfo();
    const remark = ({ type, lineNum, message }) => `${type} in line ${lineNum}: ${message}`;
    const remarks = info.messages.map(remark);
    return { shader, messages: [...remarks, ...await messages] };
}

// Runs `work` inside error scopes: its value, and the promise of what went wrong.
function captured(device, work) {
    const filters = ['validation', 'out-of-memory', 'internal'];
    filters.forEach((filter) => device.pushErrorScope(filter));
    const value = work();
    const scopes = filters.map(() => device.popErrorScope());
    const messages = Promise.all(scopes)
        .then((errors) => errors.filter(Boolean).map((error) => error.message));
    return { value, messages };
}

async function runAll(device, cases, compiled, report) {
    for (const [index, { name, replay }] of cases.entries()) {
        if (!canRun(device, replay.modules.map(({ source }) => source))) {
            await report('passed_over', { index });
            continue;
        }
        await report('progress', { message: `running ${name}` });
        const compiling = replay.modules.map((module) => compile(device, module, compiled));
        const modules = await Promise.all(compiling);
        const messages = modules.flatMap((module) => module.messages);
        // A pipeline that could not be made was reported with the messages; there is nothing to run
        // then.
        const bytes = modules.every(({ pipeline }) => pipeline)
            ? await run(device, replay, modules.map(({ pipeline }) => pipeline), messages)
            : new Uint8Array();
        await report('output', { index, messages, bytes: toBase64(bytes) });
    }
}

async function run(device, { buffers, dispatches, output }, pipelines, messages) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_SRC;
    const staging = captured(device, () => {
        const handles = buffers.map(({ bytes }) => filledBuffer(device, fromBase64(bytes), usage));
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        for (const { module, bindings, grid } of dispatches) {
            const entries = bindings.map(({ binding, buffer, offset, size }) =>
                ({ binding, resource: { buffer: handles[buffer], offset, size } }));
            pass.setPipeline(pipelines[module]);
            const layout = pipelines[module].getBindGroupLayout(0);
            pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
            pass.dispatchWorkgroups(...grid);
        }
        pass.end();
        const reads = GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ;
        const copy = device.createBuffer({ size: output.size, usage: reads });
        encoder.copyBufferToBuffer(handles[output.buffer], output.offset, copy, 0, output.size);
        device.queue.submit([encoder.finish()]);
        return copy;
    });
    const errors = await staging.messages;
    messages.push(...errors);
    if (errors.length > 0) return new Uint8Array();
    await staging.value.mapAsync(GPUMapMode.READ);
    return new Uint8Array(staging.value.getMappedRange().slice(0));
}

function filledBuffer(device, bytes, usage) {
    const buffer = device.createBuffer({ size: bytes.length, usage, mappedAtCreation: true });
    new Uint8Array(buffer.getMappedRange()).set(bytes);
    buffer.unmap();
    return buffer;
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

const toBase64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
