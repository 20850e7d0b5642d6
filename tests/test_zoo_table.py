"""The page of the zoo's figures: a row that is measured again takes its old place, and nothing else moves."""

from benchmarks.zoo import BEGIN, BEGIN_RECIPES, END, with_row

COLUMNS = ("member", "metric")
PAGE = f"# Models\n\n{BEGIN}| member | metric |\n|---|---|\n| `a` | 1 |\n| `c` | 3 |\n{END}\n\n## More\n"


def test_a_new_row_goes_where_the_alphabet_says_and_an_old_one_is_replaced() -> None:
    page = with_row(PAGE, BEGIN, COLUMNS, "| `b` | 2 |")
    assert [row for row in page.splitlines() if row.startswith("| `")] == [
        "| `a` | 1 |",
        "| `b` | 2 |",
        "| `c` | 3 |",
    ]
    assert with_row(page, BEGIN, COLUMNS, "| `b` | 9 |") == page.replace("| `b` | 2 |", "| `b` | 9 |")
    assert page.startswith("# Models\n\n")
    assert page.endswith(f"{END}\n\n## More\n")


def test_a_table_that_the_page_has_not_got_is_put_at_its_end() -> None:
    page = with_row(PAGE, BEGIN_RECIPES, COLUMNS, "| `r` | 1 |")
    assert page == f"{PAGE}{BEGIN_RECIPES}| member | metric |\n|---|---|\n| `r` | 1 |\n{END}\n"
    again = with_row(page, BEGIN, COLUMNS, "| `a` | 7 |")
    assert again == page.replace("| `a` | 1 |", "| `a` | 7 |")
