/** Rows of text in columns: the first column to the left, numbers to the right. */
export function textTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, i) => Math.max(...all.map((row) => [...(row[i] ?? "")].length)));
  return all
    .map((row) =>
      row
        .map((cell, i) => {
          const space = " ".repeat((widths[i] ?? 0) - [...cell].length);
          return i === 0 ? cell + space : space + cell;
        })
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
