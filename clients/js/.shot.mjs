import chromium from "@sparticuz/chromium";
import { chromium as launcher } from "playwright-core";
const [,, url, out, w="1440", h="900", scheme="light", ...steps] = process.argv;
const browser = await launcher.launch({ executablePath: await chromium.executablePath(), args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: +w, height: +h }, colorScheme: scheme, hasTouch: +w<500 });
page.on("console", (m) => console.log("console:", m.text()));
page.on("pageerror", (e) => console.log("pageerror:", e.message, e.stack));
await page.goto(url); 
let n = 0;
for (const step of steps) {
  const [verb, ...rest] = step.split(":"); const arg = rest.join(":");
  if (verb === "wait") await page.waitForTimeout(+arg);
  if (verb === "click") await page.click(arg);
  if (verb === "fill") { const [s, v] = arg.split("="); await page.fill(s, v); }
  if (verb === "hover") { const [x,y]=arg.split(","); await page.mouse.move(+x,+y); }
  if (verb === "key") await page.keyboard.press(arg);
  if (verb === "done") await page.waitForSelector("#verdict:not([hidden])", { timeout: 60000 });
  if (verb === "eval") console.log(JSON.stringify(await page.evaluate(arg)));
  if (verb === "shot") await page.screenshot({ path: `${out}-${n++}.png` });
  if (verb === "full") await page.screenshot({ path: `${out}-${n++}.png`, fullPage: true });
}
await browser.close();
