// The official Node client against a running server: exits 1 at the first thing that does not work.
//
//     npm install && node openai_node.mjs http://127.0.0.1:8080/v1 ["0.8 warm"]
//
// Without an expression the steered calls carry a coefficient of 0, which needs no vector.
// openai 6.49.0 runs on Node 20; 7.57.0 wants Node 22 (not run with it).

import OpenAI from "openai";

const MESSAGES = [{ role: "user", content: "Say hello to the reader in one sentence." }];
const PROMPT = "The three primary colours of paint are red, yellow and";

const [baseURL, steering] = process.argv.slice(2);
if (!baseURL) {
  console.error("usage: node openai_node.mjs BASE_URL [EXPRESSION]");
  process.exit(2);
}
const client = new OpenAI({ baseURL, apiKey: process.env.DEMEANOR_API_KEY ?? "none", maxRetries: 0, timeout: 120_000 });
let model;

function need(condition, message) {
  if (!condition) throw new Error(message);
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const chat = (more = {}) => client.chat.completions.create({ model, messages: MESSAGES, max_tokens: 12, temperature: 0, ...more });
const completion = (more = {}) => client.completions.create({ model, prompt: PROMPT, max_tokens: 12, temperature: 0, ...more });

const checks = {
  async models() {
    const listed = [];
    for await (const entry of client.models.list()) listed.push(entry.id);
    need(listed.includes(model), `\`${model}\` is not in ${listed}`);
    const one = await client.models.retrieve(model);
    need(one.id === model && one.object === "model", `retrieve answered ${JSON.stringify(one)}`);
  },

  async plainChat() {
    const answer = await chat();
    const [choice] = answer.choices;
    need(choice.message.role === "assistant" && choice.message.content, `message ${JSON.stringify(choice.message)}`);
    need(["stop", "length"].includes(choice.finish_reason), `finish_reason ${choice.finish_reason}`);
    const { usage } = answer;
    need(usage.total_tokens === usage.prompt_tokens + usage.completion_tokens, `usage ${JSON.stringify(usage)}`);
    need(answer.system_fingerprint?.startsWith("fp_"), `system_fingerprint ${answer.system_fingerprint}`);
    need(answer.demeanor, "the answer has no field `demeanor`");
  },

  async streamedChat() {
    let text = "";
    let finish, usage, first;
    let extra = 0;
    for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) {
      if (chunk.demeanor) extra += 1;
      usage = chunk.usage ?? usage;
      for (const choice of chunk.choices) {
        first ??= choice.delta;
        text += choice.delta.content ?? "";
        finish = choice.finish_reason ?? finish;
      }
    }
    need(first?.role === "assistant", `the first delta is ${JSON.stringify(first)}`);
    const whole = (await chat()).choices[0];
    need(text === whole.message.content, `streamed ${text}, at once ${whole.message.content}`);
    need(finish === whole.finish_reason, `streamed finish_reason ${finish}, at once ${whole.finish_reason}`);
    need(usage?.completion_tokens > 0, `usage in the stream is ${JSON.stringify(usage)}`);
    need(extra >= 2, `\`demeanor\` came in ${extra} chunks; the finish chunk and the usage chunk carry it`);
  },

  async severalChoices() {
    const ask = { n: 2, temperature: 1, seed: 3 };
    const [one, two] = [await chat(ask), await chat(ask)];
    need(same(one.choices.map((c) => c.index), [0, 1]), `indices ${one.choices.map((c) => c.index)}`);
    const texts = [one, two].map((a) => a.choices.map((c) => c.message.content));
    need(same(texts[0], texts[1]), `the same seed gave ${JSON.stringify(texts)}`);
  },

  async chatLogprobs() {
    const { content } = (await chat({ logprobs: true, top_logprobs: 3 })).choices[0].logprobs;
    need(content.length > 0, "logprobs asked, none came");
    for (const entry of content) {
      need(entry.logprob <= 0 && entry.top_logprobs.length === 3, `entry ${JSON.stringify(entry)}`);
      need(entry.top_logprobs[0].token === entry.token, `greedy is not the first of the top: ${JSON.stringify(entry)}`);
    }
  },

  async stopStrings() {
    const whole = (await chat({ max_tokens: 24 })).choices[0].message.content;
    const stop = whole.trim().split(/\s+/).at(-2);
    const cut = (await chat({ max_tokens: 24, stop: [stop] })).choices[0];
    need(cut.finish_reason === "stop", `stop ${stop} gave finish_reason ${cut.finish_reason}`);
    need(cut.message.content === whole.slice(0, whole.indexOf(stop)), `stop ${stop} in ${whole} gave ${cut.message.content}`);
  },

  async seeds() {
    const ask = async (seed) => (await chat({ temperature: 1, seed, max_tokens: 24 })).choices[0].message.content;
    const [one, again, other] = [await ask(5), await ask(5), await ask(6)];
    need(one === again, `seed 5 gave ${one} and ${again}`);
    need(one !== other, `seeds 5 and 6 both gave ${one}`);
  },

  async completions() {
    const answer = await completion({ echo: true, logprobs: 2, max_tokens: 3 });
    const [choice] = answer.choices;
    need(choice.text.startsWith(PROMPT), `echo gave ${choice.text}`);
    const values = choice.logprobs.token_logprobs;
    need(values[0] === null && values.slice(1).every((v) => v <= 0), `token_logprobs ${values}`);
    need(values.length === answer.usage.prompt_tokens + answer.usage.completion_tokens, `${values.length} values, usage ${JSON.stringify(answer.usage)}`);
    const several = await completion({ prompt: [PROMPT, "One, two,"], n: 2 });
    need(same(several.choices.map((c) => c.index), [0, 1, 2, 3]), `indices ${several.choices.map((c) => c.index)}`);
    let text = "";
    for await (const chunk of await completion({ stream: true })) text += chunk.choices[0]?.text ?? "";
    const whole = (await completion()).choices[0].text;
    need(text === whole, `streamed ${text}, at once ${whole}`);
  },

  async steered() {
    const expression = steering ?? "0 warm";
    for (const [call, textOf] of [[chat, (c) => c.message.content], [completion, (c) => c.text]]) {
      const answer = await call({ steering: expression });
      need(answer.demeanor.steering_from === "body", `steering_from is ${answer.demeanor.steering_from}`);
      const changed = textOf(answer.choices[0]);
      if (steering === undefined) {
        const plain = textOf((await call()).choices[0]);
        need(plain === changed, `a coefficient of 0 changed ${plain} into ${changed}`);
      } else {
        need(answer.demeanor.vectors.length > 0, `no vector in ${JSON.stringify(answer.demeanor)}`);
        const byName = await call({ model: `${model}@(${expression})` });
        need(textOf(byName.choices[0]) === changed, "steering in the model name gave another text");
      }
    }
  },

  async responses() {
    const ask = { model, input: MESSAGES, max_output_tokens: 12, temperature: 0 };
    const whole = await client.responses.create(ask);
    const said = (await chat()).choices[0].message.content;
    need(whole.output_text === said, `a response says ${whole.output_text}, a chat ${said}`);
    let text = "";
    const kinds = [];
    for await (const event of await client.responses.create({ ...ask, stream: true })) {
      kinds.push(event.type);
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    need(text === whole.output_text, `streamed ${text}, at once ${whole.output_text}`);
    need(kinds[0] === "response.created" && kinds.at(-1) === `response.${whole.status}`, `events ${kinds}`);
  },

  async refused() {
    const expect = async (status, param, more) => {
      const given = JSON.stringify(more);
      let error;
      try {
        await chat(more);
      } catch (caught) {
        error = caught;
      }
      need(error !== undefined, `${given}: accepted, expected ${status}`);
      need(error.status === status, `${given}: status ${error.status}, expected ${status} (${error})`);
      need(error.error?.message, `${given}: no error.message`);
      need(param === undefined || error.param === param, `${given}: param is ${error.param}, expected ${param}`);
    };
    await expect(404, undefined, { model: "no-such-model" });
    await expect(400, "temperature", { temperature: -1 });
    await expect(400, "temperature", { temperature: "warm" });
    await expect(400, "messages", { messages: [] });
    await expect(400, "steering", { steering: "0.8 (((" });
  },
};

async function main() {
  for await (const entry of client.models.list()) model ??= entry.id;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
    } catch (error) {
      console.log(`FAILED ${name}: ${error}`);
      return 1;
    }
    console.log(`ok     ${name}`);
  }
  console.log(`${Object.keys(checks).length} checks passed on \`${model}\``);
  return 0;
}

process.exitCode = await main().catch((error) => {
  console.log(`FAILED before the first check: ${error}`);
  return 1;
});
